"""Files that packages carry, made into ordinary model folders; run on files of a pinned hash only."""

import json
from pathlib import Path

import torch

from perdure.errors import ModelError
from perdure.models import gguf


def from_gguf(files: Path, folder: Path) -> None:
    """Write the model in the one GGUF file."""
    gguf.convert(next(files.glob("*.gguf")), folder)


def from_sentence_encoder(files: Path, folder: Path) -> None:
    """Write the encoder of a sentence-transformers folder, its tokenizer with the length it was trained on."""
    from transformers import AutoModel, AutoTokenizer

    model = AutoModel.from_pretrained(files, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(files)
    tokenizer.model_max_length = int(json.loads((files / "sentence_bert_config.json").read_text())["max_seq_length"])
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def from_torchvision_mobilenet(files: Path, folder: Path) -> None:
    """Write torchvision's MobileNetV2 as the class of transformers, with how torchvision prepares images.

    Both name the tensors otherwise and keep them in the same order, which their shapes confirm.

    Raises:
        ModelError: They do not.
    """
    from transformers import MobileNetV2Config, MobileNetV2ForImageClassification
    from transformers.models.mobilenet_v2.image_processing_pil_mobilenet_v2 import MobileNetV2ImageProcessorPil

    given = torch.load(next(files.glob("*.pth")), map_location="cpu", weights_only=True)
    config = MobileNetV2Config(num_labels=1000, tf_padding=False, layer_norm_eps=1e-5, finegrained_output=True)
    model = MobileNetV2ForImageClassification(config)
    state = model.state_dict()
    names, stored = ([name for name in kept if not name.endswith("num_batches_tracked")] for kept in (state, given))
    if [state[name].shape for name in names] != [given[name].shape for name in stored]:
        raise ModelError("the tensors of torchvision's MobileNetV2 do not follow the order of the class here")
    model.load_state_dict(state | {name: given[other] for name, other in zip(names, stored, strict=True)})
    model.save_pretrained(folder)
    MobileNetV2ImageProcessorPil(
        size={"shortest_edge": 256},
        crop_size={"height": 224, "width": 224},
        image_mean=[0.485, 0.456, 0.406],
        image_std=[0.229, 0.224, 0.225],
    ).save_pretrained(folder)
