"""GGUF files, de-quantised into an ordinary model folder."""

import struct
from pathlib import Path

import torch

from perdure.content import digest_file
from perdure.errors import ModelError
from perdure.models.catalogue import model_cache, placed


def converted(file: Path) -> Path:
    """The model folder made from a GGUF file; converted on the first call, found by content after that."""
    folder = model_cache() / f"gguf-{digest_file(file)[:16]}"
    if not (folder / "config.json").is_file():
        with placed(folder) as target:
            convert(file, target)
    return folder


def convert(file: Path, folder: Path) -> None:
    """Write the model and the tokenizer of a GGUF file as float32 safetensors into the new `folder`.

    Raises:
        ModelError: transformers does not know the file's architecture, or the file is damaged.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    try:
        tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
        model = AutoModelForCausalLM.from_pretrained(
            file.parent,
            gguf_file=file.name,
            dtype=torch.float32,
            quantization_config=GgufConfig(dequantize=True),
        )
    except (ValueError, OSError, LookupError, RuntimeError, TypeError, AttributeError, struct.error) as error:
        raise ModelError(f"{file} cannot be converted: {error}") from error
    # transformers leaves the model flagged as quantised, and save_pretrained would refuse it.
    if getattr(model.config, "quantization_config", None) is not None:
        del model.config.quantization_config
    model.is_quantized, model.hf_quantizer = False, None
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
