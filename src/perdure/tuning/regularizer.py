"""What a regularizer is, what it is prepared with, and the names they are found by."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from perdure.content import digest_json
from perdure.deltas import Delta
from perdure.errors import SettingError
from perdure.progress import Progress, counting, silent
from perdure.registry import regularizers
from perdure.settings import checked
from perdure.tuning.forward import Batch, Seen, Taps
from perdure.tuning.reading import evaluating
from perdure.tuning.trained import Trained

Reference = Literal["previous", "original"]
"""The model before this task, or the one before all tasks."""

State = Mapping[str, Tensor]
"""What a regularizer carries from one task to the next, by name."""


class RegularizerConfig(BaseModel):
    """Settings that every regularizer has."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    weight: float = Field(1.0, ge=0, description="What the penalty is multiplied by; 0 is plain training, bit for bit")

    @property
    def holds_anchors(self) -> bool:
        """Whether rows that are only there to be held change the penalty of a batch."""
        return False

    @property
    def reads_anchors(self) -> bool:
        """Whether such rows make a difference at all, be it before the first step."""
        return self.holds_anchors


@dataclass(frozen=True)
class Surroundings:
    """What a tuning stands on.

    Attributes:
        original: Opens the model before all tasks; None where it is the one being tuned.
        accumulated: What earlier tasks changed since the original, as one delta.
        earlier: What each earlier task changed, oldest first, with its factors.
        states: From a regularizer's name to its state after the earlier tasks.
        find_heads: Finds heads (layer, head) whose activations carry skills, strongest first.
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


class Run(ABC):
    """One task about to be trained: rows of tokens (`TokenRun`) or labelled items (`perdure.tuning.encoders`).

    Rows have numbers from 0 on. What a regularizer needs to know of them it asks here, so that one implementation
    serves both.

    Attributes:
        model: The network that is trained; its change is none while regularizers are prepared.
        trained: The weights under training.
        around: What the tuning stands on.
    """

    model: Any
    trained: Trained
    around: Surroundings

    @property
    @abstractmethod
    def base(self) -> Any:
        """The model inside the network whose tensors the delta names."""

    @property
    @abstractmethod
    def anchors(self) -> Sequence[bool]:
        """Of each row, whether it is only there to be held."""

    @property
    def learnt(self) -> list[int]:
        """Numbers of the rows that are learnt: all but anchors."""
        return [number for number, anchor in enumerate(self.anchors) if not anchor]

    @property
    def watched(self) -> Sequence[int]:
        """Numbers of rows of the task that are not learnt and tell how well it is."""
        return ()

    @property
    def weights(self) -> Sequence[float] | None:
        """How much each row counts where it is held; all alike when None."""
        return None

    @abstractmethod
    def content(self) -> Any:
        """What tells these rows from others, as JSON."""

    @property
    def first(self) -> int:
        """The first token of a row that says something of it: not a start token that all rows share."""
        return 0

    @abstractmethod
    def tokens(self, number: int, size: int) -> int:
        """How many tokens of a row a layer shows that gives `size` with padding, of this row's batch or of another."""

    @abstractmethod
    def told(self, number: int) -> int:
        """How many of a forward pass's distributions are a row's."""

    @property
    def asked(self) -> Mapping[str, Any]:
        """What these distributions depend on besides the reference and the rows, as JSON: nothing of a model's own."""
        return {}

    @property
    @abstractmethod
    def outcomes(self) -> int:
        """Between how many outcomes each of them tells."""

    @abstractmethod
    def packed(self, numbers: Sequence[int]) -> dict[str, Tensor]:
        """Rows as one flat batch of tensors, on the CPU: what data loaders of every kind can move."""

    @abstractmethod
    def unpacked(self, inputs: Mapping[str, Tensor]) -> Batch:
        """The batch that was packed."""

    @abstractmethod
    def batch(self, numbers: Sequence[int]) -> Batch:
        """Rows as a batch, where the model is."""

    @abstractmethod
    def batches(self, numbers: Sequence[int], *, graded: bool = False) -> Iterable[list[int]]:
        """The rows in parts of like length, as many as are read at once; fewer where gradients are taken."""

    @abstractmethod
    def forward(self, model: Any, batch: Batch, taps: Taps | None = None) -> Seen:
        """One pass of the network, or of a reference."""

    @abstractmethod
    def reference(self, which: Reference) -> AbstractContextManager[Any]:
        """The reference model while open, in evaluation mode."""

    @abstractmethod
    def untouched(self) -> AbstractContextManager[Any] | None:
        """While open, the network gives what it gave before this task; None where only its weights would tell."""

    @torch.no_grad()
    def read(
        self,
        model: Any,
        taps: Taps,
        numbers: Sequence[int] | None = None,
        *,
        patch: Callable[[Any], AbstractContextManager[None]] = lambda _batch: nullcontext(),
        stage: str = "reading the reference",
    ) -> Iterator[Seen]:
        """What rows show without gradients, every one once, in any order.

        Args:
            model: The network, or a reference.
            taps: What is seen besides the logits.
            numbers: Which rows; all when not given.
            patch: Open while a batch is read; what it changes in the model is the caller's affair.
            stage: What the work is called.
        """
        chosen = range(len(self.anchors)) if numbers is None else numbers
        add = counting(self.around.progress, stage, len(chosen))
        with evaluating(model):
            for part in self.batches(chosen):
                batch = self.batch(part)
                with patch(batch):
                    seen = self.forward(model, batch, taps)
                yield seen
                add(len(part))


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

    The reference's weights, the rows' content and the settings make the name.
    """
    if run.around.cache is None or not run.around.model_id:
        return None
    return run.around.cache / digest_json([run.around.model_id, reference, run.content(), settings])
