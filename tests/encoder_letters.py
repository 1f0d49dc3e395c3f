"""An encoder that recognises letters, and unlabelled texts of four kinds of them."""

import numpy as np
import torch

from perdure.content import digest_bytes
from perdure.requests.concept_items import Items
from perdure.requests.concepts import Unlabelled

GROUPS = ("ab", "cd", "ef", "gh")


def texts(each=40, groups=GROUPS, seed=0):
    drawn = np.random.default_rng(seed)
    made = {}
    for label, group in enumerate(groups):
        while sum(found == label for found in made.values()) < each:
            made["".join(drawn.choice(list(group), drawn.integers(8, 20)))] = label
    rows = list(made.items())
    return [rows[place] for place in drawn.permutation(len(rows))]


def unlabelled(rows, weights=None):
    given = [text for text, _ in rows]
    items = Items(
        tuple(given), tuple(f"row {n}" for n in range(len(given))),
        tuple(digest_bytes(text.encode()) for text in given), lambda handle: handle,
    )  # fmt: skip
    return Unlabelled("letters", "text", items, np.ones(len(given)) if weights is None else np.array(weights, float))


def labels(rows):
    return np.array([label for _, label in rows])


def deaf(encoder, letters="ab", to="cd"):
    """The encoder after its first letters became others to it."""
    tokenizer = encoder.reading["text"].tokenizer
    table = encoder.model.get_input_embeddings().weight
    with torch.no_grad():
        for old, new in zip(letters, to, strict=True):
            table[tokenizer.convert_tokens_to_ids(old)] = table[tokenizer.convert_tokens_to_ids(new)]
    return encoder
