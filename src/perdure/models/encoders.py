"""Encoders of images and texts: what a probe reads, and what every stage gives, in one forward pass.

Shape suffixes: B rows, T tokens or places of an image, D features, C classes, N texts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import AfterValidator
from torch import Tensor, nn

from perdure.content import digest_json
from perdure.errors import ModelError, SettingError
from perdure.models.adapters import bare
from perdure.models.checkpoint import Checkpoint
from perdure.models.classes import is_encoder
from perdure.models.encoder_inputs import ImageInputs, TextInputs, load_image_processor, text_limit, weights_digest
from perdure.models.hooks import capture
from perdure.models.layout import layout_of
from perdure.models.loading import build, resolve
from perdure.models.towers import Side, Tower, as_tokens, masked_mean, pooled_of, towers_of

__all__ = ["DecoderEncoder", "Encoder", "SeenEncoder", "Side", "build_encoder", "load_encoder"]

TEMPLATES = ("a photo of a {}.",)
"""Texts that a class's name is written into, unless others are asked for."""
MAX_TOKENS = 512


def with_place(template: str) -> str:
    """A text that a class's name can be written into.

    Raises:
        SettingError: It has no place for one.
    """
    if "{}" not in template:
        raise SettingError(f"{template!r} has no {{}} where a class's name is written; such as {TEMPLATES[0]!r}")
    return template


Template = Annotated[str, AfterValidator(with_place)]
"""A text that a class's name is written into."""


@dataclass(frozen=True)
class SeenEncoder:
    """What one forward pass showed.

    Attributes:
        pooled_BD: What a linear probe reads.
        stages: The hidden state [B, T, D] that each stage asked for gave; of a map its places.
        mask_BT: Which tokens of a text count; None for images, where all places do.
    """

    pooled_BD: Tensor
    stages: dict[str, Tensor]
    mask_BT: Tensor | None


@dataclass
class Encoder:
    """A transformers model that turns images or texts into features.

    Attributes:
        model: The model, which may have adapters attached.
        towers: What it reads, and by which part of it.
        reading: How items become inputs, for each side that can be prepared.
        version: The identity of the weights, where the caller knows it.
    """

    model: Any
    towers: Mapping[Side, Tower]
    reading: Mapping[Side, TextInputs | ImageInputs]
    version: str | None = field(default=None)

    @classmethod
    def of(cls, model: Any, tokenizer: Any = None, processor: Any = None, *, max_tokens: int = MAX_TOKENS) -> "Encoder":
        """The encoder that a model is; of a decoder, the features of what it reads.

        Args:
            model: A model of transformers, or a `PeftModel` around one.
            tokenizer: For texts; that of the processor when not given.
            processor: An image processor, or a processor that holds one.
            max_tokens: How much is read of a text, where the model could read more.

        Raises:
            ModelError: The structure is not understood.
        """
        tokenizer = tokenizer or getattr(processor, "tokenizer", None)
        inside = bare(model)
        if hasattr(inside, "config") and not is_encoder(inside.config):
            return DecoderEncoder(model, *_decoder_parts(inside, tokenizer, max_tokens))
        towers = towers_of(model)
        reading: dict[Side, TextInputs | ImageInputs] = {}
        if "text" in towers and tokenizer is not None:
            limit = text_limit(towers["text"].trunk, tokenizer, max_tokens)
            fixed = "attention_mask" not in tokenizer.model_input_names
            reading["text"] = TextInputs(tokenizer, limit, fixed=fixed)
        if "image" in towers and processor is not None:
            reading["image"] = ImageInputs(getattr(processor, "image_processor", processor))
        return cls(model, towers, reading)

    @property
    def sides(self) -> tuple[Side, ...]:
        """What it reads: images, texts, or both (two towers)."""
        return tuple(self.towers)

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        found: torch.device = next(bare(self.model).parameters()).device
        return found

    @property
    def digest(self) -> str:
        """The identity of its weights, as given or else as they are now, and of how it reads items."""
        version = self.version or weights_digest(self.model)
        return digest_json([version, {side: inputs.digest for side, inputs in self.reading.items()}])

    def prepared(self, side: Side, items: Sequence[Any]) -> dict[str, Tensor]:
        """What the model reads for these items, on its device; the same for the same items.

        Raises:
            ModelError: It has no such side, or no tokenizer or image processor for it.
            RequestError: An item is no text or image.
        """
        self.tower(side)
        if side not in self.reading:
            needed = "a tokenizer" if side == "text" else "an image processor (preprocessor_config.json)"
            raise ModelError(f"{self._named} came without {needed}, so {side}s cannot be prepared; give it one")
        if not len(items):
            raise ModelError(f"no {side}s were given; at least one is needed")
        made = self.reading[side].prepared(items)
        weights = next(bare(self.model).parameters())
        return {
            name: tensor.to(weights.device, weights.dtype if tensor.is_floating_point() else tensor.dtype)
            for name, tensor in made.items()
        }

    def stages(self, side: Side) -> dict[str, nn.Module]:
        """The stages of a side in depth order, by their names in the model.

        Raises:
            ModelError: It has no such side.
        """
        return dict(self.tower(side).stages)

    def seen(
        self, side: Side, inputs: Mapping[str, Tensor], stages: Sequence[str] = (), *, grad: bool = False
    ) -> SeenEncoder:
        """What a probe reads and what these stages give, in one forward pass.

        Modes (training or evaluation) are left as they are.

        Args:
            side: What is read.
            inputs: As `prepared` gives them.
            stages: Names of `stages(side)`.
            grad: Whether gradients flow into the features.

        Raises:
            ModelError: It has no such side or stage.
        """
        tower = self.tower(side)
        unknown = [name for name in stages if name not in tower.stages]
        if unknown:
            raise ModelError(f"no stage {unknown[0]!r}. Known: {', '.join(tower.stages)}")
        result: list[Any] = []
        wanted = {name: tower.stages[name] for name in stages}
        with torch.set_grad_enabled(grad and torch.is_grad_enabled()):
            hidden = capture(lambda: result.append(self._run(tower, inputs)), outputs=wanted, whole=True)
            mask_BT = self._mask(side, inputs)
            pooled_BD = self._pooled(tower, result[0], mask_BT, hidden)
        return SeenEncoder(pooled_BD, {name: as_tokens(hidden[name]) for name in stages}, mask_BT)

    def text_embedding(self, texts: Sequence[str], *, batch: int = 64) -> Tensor:
        """The embeddings of texts [N, D] in the space that images share, each of length one.

        Raises:
            ModelError: There are no two towers.
        """
        if set(self.sides) != {"image", "text"}:
            raise ModelError(
                f"{self._named} reads {' and '.join(self.sides)}s only; zero-shot needs a tower for images and one "
                "for texts, such as CLIP's"
            )
        starts = range(0, len(texts), batch)
        parts = (self.seen("text", self.prepared("text", texts[start : start + batch])) for start in starts)
        return torch.cat([nn.functional.normalize(part.pooled_BD.float(), dim=-1) for part in parts])

    def class_weights(self, classes: Sequence[str], templates: Sequence[str] = TEMPLATES) -> Tensor:
        """The weights [C, D] of a zero-shot classifier, each of length one.

        Each class is written into every template; the normalised embeddings are averaged and normalised again
        (Radford et al. 2021, section 3.1.4). A class's score for an image is the cosine, times `logit_scale`.

        Raises:
            ModelError: There are no two towers.
            SettingError: A template has no place for a name.
        """
        texts = [with_place(template).replace("{}", name) for name in classes for template in templates]
        each = self.text_embedding(texts).reshape(len(classes), len(templates), -1)
        return nn.functional.normalize(each.mean(1), dim=-1)

    @property
    def logit_scale(self) -> float:
        """What cosines are multiplied with before the softmax; 1 where the model has learnt none."""
        found = getattr(bare(self.model), "logit_scale", None)
        return float(found.detach().float().exp()) if found is not None else 1.0

    def tower(self, side: Side) -> Tower:
        """The part that reads one side.

        Raises:
            ModelError: It has no such side.
        """
        if side not in self.towers:
            raise ModelError(f"{self._named} reads {' and '.join(self.sides)}s; {side}s were asked for")
        return self.towers[side]

    @property
    def _named(self) -> str:
        return type(bare(self.model)).__name__

    def _run(self, tower: Tower, inputs: Mapping[str, Tensor]) -> Any:
        return tower.run(**inputs)

    def _mask(self, side: Side, inputs: Mapping[str, Tensor]) -> Tensor | None:
        if side == "image":
            return None
        reading = self.reading.get("text")
        if isinstance(reading, TextInputs):
            return reading.mask(dict(inputs))
        return inputs["attention_mask"].bool() if "attention_mask" in inputs else None

    def _pooled(self, tower: Tower, output: Any, mask_BT: Tensor | None, hidden: Mapping[str, Tensor]) -> Tensor:
        return pooled_of(tower, output, mask_BT)


class DecoderEncoder(Encoder):
    """A decoder seen as an encoder of texts: no token is written, and the head is not run.

    A probe reads the block at half depth and the last hidden state (after the final norm, once), each as the mean
    over the text's own tokens, of length one, side by side [B, 2·D].
    """

    def seen(
        self, side: Side, inputs: Mapping[str, Tensor], stages: Sequence[str] = (), *, grad: bool = False
    ) -> SeenEncoder:
        """As of an encoder; the block at half depth is read besides."""
        middle = self._middle
        found = super().seen(side, inputs, tuple(dict.fromkeys((*stages, middle))), grad=grad)
        return SeenEncoder(found.pooled_BD, {name: found.stages[name] for name in stages}, found.mask_BT)

    @property
    def _middle(self) -> str:
        names = list(self.towers["text"].stages)
        return names[(len(names) - 1) // 2]

    def _run(self, tower: Tower, inputs: Mapping[str, Tensor]) -> Any:
        return tower.run(**inputs, use_cache=False)

    def _pooled(self, tower: Tower, output: Any, mask_BT: Tensor | None, hidden: Mapping[str, Tensor]) -> Tensor:
        halves = (hidden[self._middle], output.last_hidden_state)
        unit = partial(nn.functional.normalize, dim=-1)
        return torch.cat([unit(masked_mean(half_BTD.float(), mask_BT)) for half_BTD in halves], dim=-1)


def _decoder_parts(
    inside: Any, tokenizer: Any, most: int
) -> tuple[dict[Side, Tower], dict[Side, TextInputs | ImageInputs]]:
    names = {id(module): name for name, module in inside.named_modules()}
    trunk = inside.base_model
    blocks = {names[id(block)]: block for block in layout_of(inside).blocks}
    towers: dict[Side, Tower] = {"text": Tower("text", trunk, trunk, blocks)}
    if tokenizer is None:
        return towers, {}
    return towers, {"text": TextInputs(tokenizer, text_limit(trunk, tokenizer, most), decoder=True)}


def load_encoder(
    source: str | Path, device: str = "cpu", dtype: str = "auto", *, max_tokens: int = MAX_TOKENS
) -> Encoder:
    """An encoder from a catalogue name, a folder or a hub id, every tensor accounted for.

    Args:
        source: As for `perdure.models.resolve`.
        device: A torch device, such as "cpu" or "cuda".
        dtype: "auto" (as stored), "float32", "bfloat16" or "float16".
        max_tokens: How much is read of a text, where the model could read more.

    Raises:
        ModelError: The weights do not fit, or it is no encoder that is understood.
    """
    checkpoint = Checkpoint.open(resolve(source))
    tensors = {name: checkpoint.tensor(name) for name in checkpoint.entries}
    return build_encoder(checkpoint.folder, tensors, device=device, dtype=dtype, max_tokens=max_tokens)


def build_encoder(
    folder: Path,
    tensors: Mapping[str, Tensor],
    *,
    device: str = "cpu",
    dtype: str = "auto",
    max_tokens: int = MAX_TOKENS,
) -> Encoder:
    """An encoder made of the config, tokenizer and image processor in `folder` and of the given weights.

    Raises:
        ModelError: The weights do not fit, or it is no encoder that is understood.
    """
    model, tokenizer = build(folder, tensors, device=device, dtype=dtype)
    return Encoder.of(model, tokenizer, load_image_processor(folder), max_tokens=max_tokens)
