"""Texts and images as an encoder reads them: deterministic, padded by its own rules.

Shape suffixes: B rows, T tokens.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from huggingface_hub.errors import StrictDataclassError
from torch import Tensor

from perdure.content import digest_bytes, digest_json, digest_tensor
from perdure.errors import ModelError, RequestError
from perdure.models.adapters import adapters_of, bare
from perdure.models.loading import require_pillow
from perdure.pictures import in_rgb

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True)
class TextInputs:
    """Texts as token ids.

    Attributes:
        tokenizer: The tokenizer.
        limit: The most tokens of a text; what is longer is cut.
        fixed: Whether every row is padded to the limit and padding is read like text (SigLIP).
        decoder: Whether positions are counted here, and a start token is no part of the text.
    """

    tokenizer: Any
    limit: int
    fixed: bool = False
    decoder: bool = False

    def prepared(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """The inputs of a forward pass, padded on the right.

        Raises:
            RequestError: A text has no tokens, or is no valid Unicode.
        """
        rows = self._rows(texts)
        length = self.limit if self.fixed else max(len(row) for row in rows)
        ids_BT = torch.full((len(rows), length), self._pad, dtype=torch.long)
        mask_BT = torch.zeros(len(rows), length, dtype=torch.long)
        for index, row in enumerate(rows):
            ids_BT[index, : len(row)] = torch.tensor(row)
            mask_BT[index, : len(row)] = 1
        inputs = {"input_ids": ids_BT}
        if not self.fixed:
            inputs["attention_mask"] = mask_BT
        if self.decoder:
            inputs["position_ids"] = (mask_BT.cumsum(1) - 1).clamp(min=0)
        return inputs

    def mask(self, inputs: dict[str, Tensor]) -> Tensor:
        """Which tokens are the text's [B, T], bool; a decoder's start token is none: it gathers attention."""
        ids_BT = inputs["input_ids"]
        mask_BT = inputs["attention_mask"].bool() if "attention_mask" in inputs else ids_BT != self._pad
        if self.decoder and self.tokenizer.bos_token_id is not None and ids_BT.shape[1] > 1:
            start_B = (ids_BT[:, 0] == self.tokenizer.bos_token_id) & mask_BT[:, 1]
            mask_BT = mask_BT.clone()
            mask_BT[:, 0] &= ~start_B
        return mask_BT

    @property
    def digest(self) -> str:
        """What tells two ways of reading texts apart."""
        core = getattr(self.tokenizer, "backend_tokenizer", None)
        rules = json.loads(core.to_str()) if core is not None else self.tokenizer.get_vocab()
        kept = {key: value for key, value in rules.items() if key not in ("padding", "truncation")}
        return digest_json([kept, self.limit, self.fixed, self.decoder, self._pad])

    @property
    def _pad(self) -> int:
        found = self.tokenizer.pad_token_id
        return 0 if found is None else int(found)

    def _rows(self, texts: Sequence[str]) -> list[list[int]]:
        odd = next((text for text in texts if not isinstance(text, str)), None)
        if odd is not None:
            raise RequestError(f"a {type(odd).__name__} where a text is expected")
        try:
            found = self.tokenizer(list(texts), truncation=True, max_length=self.limit)["input_ids"]
        except (TypeError, UnicodeError) as error:  # lone surrogates: bytes that were no UTF-8
            raise RequestError(f"a text cannot be tokenised: {error}") from error
        rows = [list(ids) for ids in found]
        if [] in rows:
            raise RequestError(f"{texts[rows.index([])]!r} has no tokens; an encoder needs at least one")
        return rows


@dataclass(frozen=True)
class ImageInputs:
    """Images as pixel values, by the model's own image processor on Pillow.

    Attributes:
        processor: An image processor of transformers.
    """

    processor: Any

    def prepared(self, images: Sequence[Any]) -> dict[str, Tensor]:
        """The inputs of a forward pass, [B, C, H, W].

        Raises:
            RequestError: Something is no image.
        """
        pictures = [as_picture(image) for image in images]
        return {"pixel_values": self.processor(images=pictures, return_tensors="pt")["pixel_values"]}

    @property
    def digest(self) -> str:
        """What tells two ways of reading images apart."""
        settings = json.loads(self.processor.to_json_string())
        return digest_json({key: value for key, value in settings.items() if not key.startswith("_")})


def as_picture(image: Any) -> "Image.Image":
    """An image in RGB, whatever it was.

    Raises:
        RequestError: It is none, or what is black and white in it is not known.
    """
    from PIL import Image

    if isinstance(image, np.ndarray):
        flat = image[..., 0] if image.ndim == 3 and image.shape[2] == 1 else image
        if flat.dtype != np.uint8 or not (flat.ndim == 2 or (flat.ndim == 3 and flat.shape[2] in (3, 4))):
            raise RequestError(f"an array {image.dtype} {list(image.shape)} is no image: uint8 [H, W, C] or [H, W]")
        image = Image.fromarray(np.ascontiguousarray(flat))
    if not isinstance(image, Image.Image):
        raise RequestError(f"a {type(image).__name__} where an image is expected")
    return in_rgb(image, "an image")


def load_image_processor(folder: Path) -> Any | None:
    """The image processor in a model's folder, on Pillow; None where the folder holds none.

    Raises:
        ModelError: It is not understood, or Pillow is not installed.
    """
    from transformers import AutoImageProcessor

    if not any((folder / name).is_file() for name in ("preprocessor_config.json", "processor_config.json")):
        return None
    require_pillow()
    try:
        return AutoImageProcessor.from_pretrained(folder, trust_remote_code=False, backend="pil")
    except (ImportError, ValueError, OSError, KeyError, TypeError, AttributeError, StrictDataclassError) as error:
        raise ModelError(f"The image processor in {folder} is not understood: {error}") from error


def text_limit(trunk: Any, tokenizer: Any, most: int) -> int:
    """The most tokens of a text: what the positions and the tokenizer allow, and `most`."""
    config = trunk.config.get_text_config()
    places = getattr(config, "max_position_embeddings", None) or most
    # RoBERTa counts places from behind its padding's.
    offsets = [
        module.padding_idx + 1
        for name, module in trunk.named_modules()
        if name.endswith("position_embeddings") and getattr(module, "padding_idx", None) is not None
    ]
    return int(min(most, places - max(offsets, default=0), tokenizer.model_max_length))


def weights_digest(model: Any) -> str:
    """The identity of a model's class, config and all that its forward pass reads, as it is now."""
    inside = bare(model)
    config = json.loads(inside.config.to_json_string(use_diff=False)) if hasattr(inside, "config") else {}
    for volatile in ("_name_or_path", "transformers_version", "architectures", "dtype", "torch_dtype"):
        config.pop(volatile, None)
    tensors = {name: digest_tensor(tensor) for name, tensor in inside.state_dict().items()}
    said = json.dumps([type(inside).__name__, config, tensors, adapters_of(model)], sort_keys=True)
    return digest_bytes(said.encode())
