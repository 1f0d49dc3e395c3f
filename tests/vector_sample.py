"""A function vector to share, and a function that a random model is taken to do in context."""

import torch

from perdure.requests.functions import Function, Pair
from perdure.vectors import Evidence, Traits
from perdure.vectors.headers import Origin
from perdure.vectors.sharing import describe

SIZE = 32
SECRET = "zanzibar"
QUICK = {"shots": 1, "validation": 2, "asked": 2, "heads": 3}
QUICK_OPTIONS = [word for name, value in QUICK.items() for word in ("--set", f"{name}={value}")]


def origin(**other):
    known = {"layers": 4, "heads": 4, "head_dim": 8, "hidden": SIZE, "weights": "a" * 64, "config": "b" * 64}
    return Origin(**known | other)


def vector(seed=0):
    return torch.randn(SIZE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def shared(vector_D=None, **other):
    about = {
        "name": "present_past",
        "digest": "c" * 64,
        "model": origin(),
        "heads": ((2, 1), (0, 3)),
        "layer": 2,
        "settings": {"shots": 10, "scored": "first", "margin": 0.1, "prefilter": None},
        "in_context": {"n": 25, "clean": 24, "shuffled": 3},
        "figures": {"zero-shot": {"n": 40, "plain": 1, "vector": 30, "random": 0, "layer": 2}},
    }
    return describe(vector() if vector_D is None else vector_D, **about | other)


def function(name="plurals"):
    """Made-up pairs with a word in each that must be in no shared file."""
    return Function(name, tuple(Pair(input=f"{SECRET}{n}", output=f"{SECRET}{n}s") for n in range(20)))


def traits_of(side, asked, _bench):
    """What the heads of a model of four layers with four heads of size 8 do, made up."""
    drawn = torch.Generator().manual_seed(5)
    evidence = Evidence((True,) * 9 + (False,), (True,) * 2 + (False,) * 8, "")
    effect_LH = torch.randn(4, 4, generator=drawn, dtype=torch.float64)
    return Traits(asked.name, evidence, torch.randn(4, 4, 8, generator=drawn), effect_LH)


def study(_model, _tokenizer, asked, *_more):
    """The same in place of the study of a model."""
    return traits_of(None, asked, None)
