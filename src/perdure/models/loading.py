"""From a name to a running model: catalogue name, folder, GGUF file or hub id."""

import importlib.util
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import Tensor

from perdure.errors import ModelError, UnsafeFileError
from perdure.models.catalogue import CATALOGUE, fetch
from perdure.models.checkpoint import PICKLE_SUFFIXES, SIDE_FILES, TOKENIZER_FILES, Checkpoint
from perdure.models.classes import blank_model, is_encoder, parts_of
from perdure.models.layout import Layout, layout_of

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def resolve(source: str | Path) -> Path:
    """The folder of a model, fetched or converted if need be.

    Args:
        source: A name of the catalogue, a folder, a .gguf file, or a hub id (`owner/name`).

    Raises:
        UnsafeFileError: A pickled file.
        ModelError: Nothing of the kind exists, or the hub cannot be reached.
    """
    path = Path(source)
    if str(source) in CATALOGUE:
        return fetch(str(source))
    if path.is_dir():
        return path
    if path.is_file():
        return _resolve_file(path)
    if _HUB_ID.fullmatch(str(source)):
        return _download(str(source))
    raise ModelError(
        f"No model {str(source)!r}. Give a name of the catalogue ({', '.join(CATALOGUE)}), a folder with "
        "config.json and safetensors, a .gguf file, or a hub id such as HuggingFaceTB/SmolLM2-135M-Instruct"
    )


def _resolve_file(path: Path) -> Path:
    if path.suffix == ".gguf":
        from perdure.models.gguf import converted

        return converted(path)
    if path.suffix in PICKLE_SUFFIXES:
        raise UnsafeFileError(f"{path} is a pickled file, which can run code when it is opened, and is refused")
    raise ModelError(f"{path} is neither a model folder nor a .gguf file")


def _download(hub_id: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    patterns = ["model.safetensors", "model-*-of-*.safetensors", "*.safetensors.index.json", *SIDE_FILES]
    try:
        return Path(snapshot_download(hub_id, allow_patterns=patterns))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise ModelError(f"{hub_id} could not be fetched from the hub: {error}") from error


def load(source: str | Path, *, device: str = "cpu", dtype: str = "auto") -> tuple[Any, Any]:
    """A model in evaluation mode and its tokenizer; of a model that also reads images see `load_processor`.

    Args:
        source: As for `resolve`.
        device: A torch device, such as "cpu" or "cuda".
        dtype: "auto" (as stored), "float32", "bfloat16" or "float16".

    Raises:
        ModelError: Tensors are missing, unexpected, of another shape, or not finite.
    """
    checkpoint = Checkpoint.open(resolve(source))
    tensors = {name: checkpoint.tensor(name) for name in checkpoint.entries}
    return build(checkpoint.folder, tensors, device=device, dtype=dtype)


def load_processor(folder: Path) -> Any | None:
    """The processor that turns images and text into the model's inputs; None where the folder holds none.

    Images are always prepared with Pillow, so that the numbers do not depend on what else is installed.

    Raises:
        ModelError: The processor is not understood, or needs a library that is not installed.
    """
    from transformers import AutoProcessor

    if not any((folder / name).is_file() for name in ("processor_config.json", "preprocessor_config.json")):
        return None
    require_pillow()
    try:
        processor = AutoProcessor.from_pretrained(folder, trust_remote_code=False, backend="pil")
    except ImportError as error:  # processors that also read videos
        raise ModelError(
            f"The processor in {folder} needs a library that is not here; if torchvision, install the one built for "
            f"your torch: {' '.join(str(error).split())}"
        ) from error
    except (ValueError, OSError, KeyError, TypeError, AttributeError, StrictDataclassError) as error:
        raise ModelError(f"The processor in {folder} is not understood: {error}") from error
    if not hasattr(processor, "image_processor"):
        raise ModelError(f"The files in {folder} make a {type(processor).__name__}, which takes no images with text")
    return processor


def require_pillow() -> None:
    """Check that images can be read.

    Raises:
        ModelError: Pillow is not installed.
    """
    if importlib.util.find_spec("PIL") is None:
        raise ModelError("images need Pillow; install it with: pip install 'perdure[images]'")


def holds_encoder(folder: Path) -> bool:
    """Whether the model whose config lies in `folder` is an encoder, which writes nothing.

    Raises:
        ModelError: The config is not understood.
    """
    from transformers import AutoConfig

    try:
        return is_encoder(AutoConfig.from_pretrained(folder, trust_remote_code=False))
    except (ValueError, OSError, KeyError, TypeError, AttributeError, StrictDataclassError) as error:
        raise ModelError(f"The config in {folder} is not understood: {error}") from error


def outline(folder: Path) -> Layout:
    """The layout of the model whose config lies in `folder`; no weight is read or made.

    Raises:
        ModelError: The config is not understood.
    """
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        return layout_of(blank_model(config, ()))
    except (ValueError, OSError, KeyError, TypeError, AttributeError, StrictDataclassError) as error:
        raise ModelError(f"The config in {folder} is not understood: {error}") from error


def build(folder: Path, tensors: Mapping[str, Tensor], *, device: str = "cpu", dtype: str = "auto") -> tuple[Any, Any]:
    """A model made of the config and tokenizer in `folder` and of the given weights; an encoder of images has none.

    An encoder becomes the class that its config names, a decoder the one that writes.

    Raises:
        ModelError: The weights do not fit the config one to one, or one is not finite.
    """
    from transformers import AutoConfig

    target = _device(device)
    broken = [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]
    if broken:
        raise ModelError(f"{len(broken)} tensors hold NaN or infinite numbers, for example {broken[0]}")
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        tokenizer, generation = load_tokenizer(folder, config), load_generation_config(folder)
        model_class = type(blank_model(config, tensors))  # the auto class takes no weights from memory
        model, found = model_class.from_pretrained(
            None,
            config=config,
            state_dict=dict(tensors),
            dtype=_dtype(dtype, tensors),
            output_loading_info=True,
            **parts_of(model_class, tensors),
        )
    except (ValueError, OSError, KeyError, RuntimeError, TypeError, AttributeError, StrictDataclassError) as error:
        raise ModelError(f"The model in {folder} cannot be built: {error}") from error
    _check_loading(folder, found)
    if generation is not None:
        model.generation_config = generation
    return model.to(target).eval().requires_grad_(False), tokenizer


def load_tokenizer(folder: Path, config: Any) -> Any | None:
    """The tokenizer in `folder`; None for an encoder without one, which reads images alone."""
    from transformers import AutoTokenizer

    if is_encoder(config) and not any((folder / name).is_file() for name in TOKENIZER_FILES):
        return None
    return AutoTokenizer.from_pretrained(folder, trust_remote_code=False)


def load_generation_config(folder: Path) -> Any | None:
    """How the model in `folder` says that it ends an answer; None where it says nothing.

    The end tokens of a chat model often stand only there.
    """
    from transformers import GenerationConfig

    return GenerationConfig.from_pretrained(folder) if (folder / "generation_config.json").is_file() else None


def _device(name: str) -> torch.device:
    """The device, seen to work.

    Raises:
        ModelError: There is no such device here.
    """
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise ModelError(
            f"No device {name!r} here ({str(error).splitlines()[0]}). Allowed: cpu, cuda, cuda:1"
        ) from error


def _dtype(dtype: str, tensors: Mapping[str, Tensor]) -> torch.dtype:
    if dtype == "auto":
        return max((tensor for tensor in tensors.values()), key=lambda tensor: tensor.numel()).dtype
    allowed = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if dtype not in allowed:
        raise ModelError(f"Unknown dtype {dtype!r}. Allowed: auto, {', '.join(allowed)}")
    return allowed[dtype]


def _check_loading(folder: Path, found: Mapping[str, Any]) -> None:
    kinds = ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs")
    wrong = {kind: sorted(map(str, found.get(kind) or ())) for kind in kinds}
    said = [f"{kind.replace('_', ' ')}: {', '.join(names[:3])}" for kind, names in wrong.items() if names]
    if said:
        raise ModelError(f"The weights in {folder} do not fit its config: {'; '.join(said)}")
