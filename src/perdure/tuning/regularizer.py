"""What a regularizer is, what it is prepared with, and the names they are found by."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from perdure.content import digest_json
from perdure.deltas import Delta
from perdure.errors import SettingError
from perdure.progress import Progress, silent
from perdure.registry import regularizers
from perdure.settings import checked
from perdure.tuning.encoding import Row
from perdure.tuning.forward import Seen, Taps
from perdure.tuning.trained import Trained

Reference = Literal["previous", "original"]
"""The model before this task, or the one before all tasks."""

State = Mapping[str, Tensor]
"""What a regularizer carries from one task to the next, by name."""


class RegularizerConfig(BaseModel):
    """Settings that every regularizer has."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    weight: float = Field(1.0, ge=0, description="What the penalty is multiplied by; 0 is plain training, bit for bit")


@dataclass(frozen=True)
class Surroundings:
    """What a tuning stands on.

    Attributes:
        original: Opens the model before all tasks; None where it is the one being tuned.
        accumulated: What earlier tasks changed since the original, as one delta.
        earlier: What each earlier task changed, oldest first, with its factors.
        states: From a regularizer's name to its state after the earlier tasks.
        heads: Heads (layer, head) whose activations carry skills, strongest first; found where needed when empty.
        find_heads: Finds them.
        cache: Folder of targets that were computed once; in memory when not given.
        model_id: Tells this model from others in the cache, such as a content hash.
        progress: Told how far the work is.
    """

    original: Callable[[], AbstractContextManager[Any]] | None = None
    accumulated: Delta = field(default_factory=Delta)
    earlier: Sequence[Delta] = ()
    states: Mapping[str, State] = field(default_factory=dict)
    find_heads: Callable[[Any, Any], Sequence[tuple[int, int]]] | None = None
    cache: Path | None = None
    model_id: str = ""
    progress: Progress = silent


@dataclass(frozen=True)
class Run:
    """One task about to be trained.

    Attributes:
        model: The network that is trained; its change is none while regularizers are prepared.
        tokenizer: Its tokenizer.
        rows: The rows that are trained on.
        pairs: Inputs and outputs of the task without their instruction, for prompts with examples.
        trained: The weights under training.
        around: What the tuning stands on.
        batch_tokens: How many padded tokens are read at once without gradients.
    """

    model: Any
    tokenizer: Any
    rows: Sequence[Row]
    pairs: Sequence[tuple[str, str]]
    trained: Trained
    around: Surroundings
    batch_tokens: int = 2048

    def reference(self, which: Reference) -> AbstractContextManager[Any]:
        """The reference model while open, in evaluation mode."""
        if which == "original" and self.around.original is not None:
            return self.around.original()
        return nullcontext(self.model)


class Regularizer(Protocol):
    """One term of the loss."""

    def taps(self, model: Any) -> Taps:
        """What it must see of each forward pass."""

    def prepare(self, run: Run) -> None:
        """Compute, before the first step, all that stays fixed during the task."""

    def penalty(self, seen: Seen) -> Tensor:
        """The penalty of a batch, before its weight: a scalar."""

    def after_task(self, run: Run) -> State:
        """What later tasks need to know of this one, the model carrying what was learnt."""


def made(given: Mapping[str, Any]) -> tuple[str, RegularizerConfig]:
    """The name and the checked settings of a regularizer given as a mapping with its `kind`.

    Raises:
        UnknownNameError: There is no such regularizer.
        SettingError: No kind, a setting that does not exist, or one out of range.
    """
    if "kind" not in given:
        raise SettingError(f"a regularizer needs its kind: {', '.join(each.name for each in regularizers)}")
    method = regularizers.get(str(given["kind"]))
    config = checked(method.config, given, f"regularizer {method.name}")
    assert isinstance(config, RegularizerConfig)
    return method.name, config


def cache_file(run: Run, reference: Reference, settings: Mapping[str, Any]) -> Path | None:
    """Where targets of these rows are kept, by the content they depend on; None without a cache.

    The reference's weights, the rows' tokens, the bytes of their pictures and the settings make the name.
    """
    if run.around.cache is None or not run.around.model_id:
        return None
    rows = [[list(row.ids), list(map(int, row.learns)), *(row.shown.digests if row.shown else ())] for row in run.rows]
    return run.around.cache / digest_json([run.around.model_id, reference, rows, settings])
