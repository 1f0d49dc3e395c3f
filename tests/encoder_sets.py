"""Random encoders of a few thousand parameters and small labelled sets, for the tests of their tuning."""

import numpy as np
import torch
from transformers import (
    BertConfig,
    BertModel,
    CLIPConfig,
    CLIPModel,
    ResNetConfig,
    ResNetForImageClassification,
    ViTConfig,
    ViTModel,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

import tiny
from perdure.content import digest_bytes
from perdure.models.encoders import Encoder
from perdure.requests.concept_items import Items
from perdure.requests.concepts import Labelled, Probe, Unlabelled

SIDE = 16
_BLOCKS = dict(
    hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, initializer_range=0.2
)  # fmt: skip


def images():
    return CLIPImageProcessorPil(
        size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}, do_convert_rgb=False
    )


def _ready(model):
    return model.eval().requires_grad_(False)


def vit(seed=0):
    torch.manual_seed(seed)
    config = ViTConfig(**_BLOCKS, image_size=SIDE, patch_size=8, hidden_dropout_prob=0.3)
    return Encoder.of(_ready(ViTModel(config, add_pooling_layer=False)), processor=images())


def resnet(seed=0):
    """With a classifier and batch norms whose statistics a training mode would move."""
    torch.manual_seed(seed)
    config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 12], depths=[1, 1], layer_type="basic", num_labels=3)
    return Encoder.of(_ready(ResNetForImageClassification(config)), processor=images())


def bert(seed=0):
    torch.manual_seed(seed)
    config = BertConfig(
        **_BLOCKS, vocab_size=tiny.VOCAB, max_position_embeddings=64, hidden_dropout_prob=0.3, type_vocab_size=1
    )
    return Encoder.of(_ready(BertModel(config, add_pooling_layer=True)), tokenizer=tiny.tokenizer())


def clip(seed=0):
    torch.manual_seed(seed)
    words = _BLOCKS | dict(vocab_size=tiny.VOCAB, max_position_embeddings=64, bos_token_id=0, eos_token_id=1)
    config = CLIPConfig(
        text_config=words, vision_config=_BLOCKS | dict(image_size=SIDE, patch_size=8), projection_dim=12
    )
    return Encoder.of(_ready(CLIPModel(config)), tokenizer=tiny.tokenizer(), processor=images())


FAMILIES = {"vit": vit, "resnet": resnet, "bert": bert}
SIDES = {"vit": "image", "resnet": "image", "bert": "text", "clip": "image"}


def _items(values, side):
    bytes_of = [value.encode() if side == "text" else value.tobytes() for value in values]
    places = tuple(f"row {number}" for number in range(len(values)))
    return Items(tuple(values), places, tuple(map(digest_bytes, bytes_of)), lambda handle: handle)


def texts(count, seed=0):
    """Sentences of different lengths that hold one of two words."""
    drawn = np.random.default_rng(seed)
    words = ["river", "stone", "cloud"]
    for number in range(count):
        filler = " ".join(drawn.choice(words, size=int(drawn.integers(1, 5))))
        yield f"{filler} {('alpha', 'omega')[number % 2]} {number}", number % 2


def pictures(count, seed=0):
    """Noise with a bright upper or lower half."""
    drawn = np.random.default_rng(seed)
    for number in range(count):
        pixels = drawn.integers(0, 120, size=(SIDE, SIDE, 3))
        half = slice(0, SIDE // 2) if number % 2 else slice(SIDE // 2, SIDE)
        pixels[half] += 80
        yield pixels.astype(np.uint8), number % 2


def labelled(side, count, seed=0):
    values, labels = zip(*(texts if side == "text" else pictures)(count, seed), strict=True)
    return Labelled(_items(values, side), np.array(labels, np.int64))


def probe(side, count=12, name="halves"):
    return Probe(name, side, ("one", "other"), labelled(side, count), labelled(side, 6, seed=1))


def uneven(count, longest):
    """Short texts but one, in rows of either class."""
    values = [f"{('alpha', 'omega')[number % 2]} {'x ' * (number % 5)}" for number in range(count)]
    values[longest] = f"{values[longest]} {'river ' * 7}"
    labels = np.arange(count) % 2
    return Probe("uneven", "text", ("one", "other"), Labelled(_items(values, "text"), labels), labelled("text", 6, 1))


def unlabelled(side, count=4):
    items = labelled(side, count, seed=2).items
    return Unlabelled("general", side, items, np.ones(count))
