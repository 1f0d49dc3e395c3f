"""What a network is: where it comes from, how it is built, how to look inside and steer it."""

from perdure.models.catalogue import CATALOGUE, fetch
from perdure.models.checkpoint import Checkpoint, TensorEntry
from perdure.models.generation import chat_prompt, complete
from perdure.models.hooks import (
    capture,
    hidden_of,
    patch_input,
    patch_output,
    resume_above,
    returns_tuple,
)
from perdure.models.layout import Layout, Projection, layout_of
from perdure.models.loading import build, load, load_processor, resolve
from perdure.models.scoring import Scores, score_targets

__all__ = [
    "CATALOGUE",
    "Checkpoint",
    "Layout",
    "Projection",
    "Scores",
    "TensorEntry",
    "build",
    "capture",
    "chat_prompt",
    "complete",
    "fetch",
    "hidden_of",
    "layout_of",
    "load",
    "load_processor",
    "patch_input",
    "patch_output",
    "resolve",
    "resume_above",
    "returns_tuple",
    "score_targets",
]
