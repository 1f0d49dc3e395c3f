"""Tiny encoders with random weights, and probe sets that they tell apart: strings of letters, squares of colours."""

import numpy as np
import torch
from transformers import BertConfig, BertModel, CLIPConfig, CLIPModel
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

import tiny
from perdure.content import digest_bytes
from perdure.models.encoders import Encoder
from perdure.requests.concept_items import Items
from perdure.requests.concepts import Labelled, Probe

SIDE = 32


def tokenizer():
    made = tiny.tokenizer()
    made.pad_token = "</s>"
    return made


def bert(seed=0):
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=tiny.VOCAB, hidden_size=32, num_hidden_layers=4, num_attention_heads=4, intermediate_size=48,
        max_position_embeddings=64, initializer_range=0.2,
    )  # fmt: skip
    return Encoder.of(BertModel(config).eval(), tokenizer())


def decoder(seed=0):
    return Encoder.of(tiny.llama(seed), tokenizer())


def clip(seed=0):
    torch.manual_seed(seed)
    part = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4, initializer_range=0.2)
    words = part | dict(vocab_size=tiny.VOCAB, max_position_embeddings=64, bos_token_id=0, eos_token_id=1)
    eyes = part | dict(image_size=SIDE, patch_size=8)
    config = CLIPConfig(text_config=words, vision_config=eyes, projection_dim=16)
    pictures = CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE})
    return Encoder.of(CLIPModel(config).eval(), tokenizer(), pictures)


def labelled(items, labels, digests):
    places = tuple(f"row {number}" for number in range(len(items)))
    return Labelled(Items(tuple(items), places, tuple(digests), lambda item: item), np.asarray(labels, np.int64))


def probe(side, classes, rows, *, name="sample", train=20, test=20):
    """A set of `rows(class, number)` with so many items a class."""
    parts = []
    for first, count in ((0, train), (train, test)):
        items = [(rows(label, first + number), label) for label in range(len(classes)) for number in range(count)]
        digests = [digest_bytes(item.encode() if side == "text" else item.tobytes()) for item, _ in items]
        parts.append(labelled([item for item, _ in items], [label for _, label in items], digests))
    return Probe(name, side, tuple(classes), *parts)


def letters(groups=("ab", "cd", "ef", "gh"), **more):
    """Texts of letters of one group each, 3 to 20 of them."""

    def row(label, number):
        drawn = np.random.default_rng((label, number))
        return "".join(drawn.choice(list(groups[label]), drawn.integers(3, 20)))

    return probe("text", [f"of {group}" for group in groups], row, **more)


def colours(**more):
    """Noisy pictures, each class brightest in another channel."""

    def row(label, number):
        drawn = np.random.default_rng((label, number))
        picture = drawn.integers(0, 120, (20, 20, 3))
        picture[..., label] += 120
        return picture.astype(np.uint8)

    return probe("image", ("red", "green", "blue"), row, **more)
