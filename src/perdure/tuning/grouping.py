"""Groups of instructions: which tasks share an adapter, decided by how alike their instructions are.

After Qiao et al., "Large Continual Instruction Assistant" (LCIA), ICML 2025, arXiv 2410.10868: a task
joins the group whose instructions its own resemble most, or opens a new one.

Shape suffixes: N texts, D dimensions.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from perdure.errors import SettingError, UnknownNameError
from perdure.tuning.similarity import (
    Encoder,
    EncoderState,
    Similarities,
    built_in_similarities,
    encoder_of,
    likeness,
    separation,
)

_ENOUGH = 10  # similarities of a kind, below which the built-in instructions stand in
_TIE = 1e-9


class GroupingConfig(BaseModel):
    """How instructions are put into groups."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["grouping"] = "grouping"
    cap: int = Field(default=8, ge=1, description="groups at most; then the nearest is taken")
    threshold: float | None = Field(
        default=None, ge=-1, le=1, description="similarity from which a task joins a group; calibrated if not given"
    )


class GroupedTask(BaseModel):
    """A task that has joined."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    group: str = Field(pattern=r"^g[1-9][0-9]*$", description="its group")
    instructions: tuple[str, ...] = Field(min_length=1, description="its different instructions, sorted")
    digest: str = Field(default="", description="of its content; none: it is told by its name alone")


class GroupsState(BaseModel):
    """All groups, as they are kept."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    config: GroupingConfig = GroupingConfig()
    encoder: EncoderState
    tasks: dict[str, GroupedTask] = Field(default_factory=dict, description="by name, in the order of joining")
    log: tuple[str, ...] = Field(default=(), description="every choice in words")


@dataclass(frozen=True)
class Joined:
    """Where a task went.

    Attributes:
        task: Its name here: with a part of its digest where another task has its name.
        group: Its group.
        similarity: Its mean similarity to the nearest group that was there before; 0 where there was none.
        nearest: That group: where it differs from `group`, what a new adapter starts from.
        opened: Whether the group is new.
        reason: The choice in words.
    """

    task: str
    group: str
    similarity: float
    nearest: str | None
    opened: bool
    reason: str


@dataclass(frozen=True)
class Threshold:
    """The similarity from which a task joins, and where it comes from."""

    value: float
    reason: str


class Groups:
    """The groups of a project's tasks.

    Which group a task joins depends on the tasks before it, not on the order of instructions or of the members of
    a group.

    Args:
        encoder: Texts to vectors; the same for as long as the groups live.
        config: Cap and threshold.
    """

    def __init__(self, encoder: Encoder, config: GroupingConfig | None = None) -> None:
        self.encoder = encoder
        self.config = config or GroupingConfig()
        self.tasks: dict[str, GroupedTask] = {}
        self.log: list[str] = []
        self._vectors: dict[str, Tensor] = {}

    @classmethod
    def resumed(cls, state: GroupsState, encoder: Encoder | None = None) -> "Groups":
        """The groups of a state; the encoder is made again from it where none is given."""
        groups = cls(encoder or encoder_of(state.encoder), state.config)
        groups.tasks.update(state.tasks)
        groups.log.extend(state.log)
        return groups

    def state(self) -> GroupsState:
        """All that is needed to go on."""
        return GroupsState(
            config=self.config, encoder=self.encoder.state(), tasks=dict(self.tasks), log=tuple(self.log)
        )

    @property
    def names(self) -> tuple[str, ...]:
        """The groups, in the order of their opening."""
        return tuple(sorted({task.group for task in self.tasks.values()}, key=_number))

    def members(self, group: str) -> tuple[str, ...]:
        """The tasks of a group, in the order of joining.

        Raises:
            UnknownNameError: No such group.
        """
        if group not in self.names:
            raise UnknownNameError("group", group, self.names)
        return tuple(name for name, task in self.tasks.items() if task.group == group)

    def join(self, task: str, instructions: Sequence[str], digest: str = "") -> Joined:
        """Put a task into the group that it resembles enough, or into a new one.

        The similarity to a group is that to its most alike task: the mean over the new task's instructions of the
        best match with one of that task's or with their centre. A centre of the whole group would drift to the
        words that all instructions share, and draw in everything. A task that is there already stays in its group,
        with its instructions added.

        Args:
            task: Its name.
            instructions: Its instructions.
            digest: Of its content: another task of the same name gets a name of its own.

        Raises:
            SettingError: A task without any instruction.
        """
        texts = {text.strip() for text in instructions if any(map(str.isalnum, text))}
        if not texts:
            raise SettingError(f"the task {task!r} has no instruction to be grouped by; give it one")
        name = self._name(task, digest)
        if name in self.tasks:
            known = self.tasks[name]
            joined = Joined(name, known.group, 1.0, known.group, False, f"is in {known.group} already")
            return self._put(joined, {*known.instructions, *texts}, known.digest)
        joined = self._choose(name, sorted(texts))
        if name != task:
            joined = replace(joined, reason=f"{joined.reason}; another task is called {task}")
        return self._put(joined, texts, digest)

    def similarities(self, texts: Sequence[str]) -> dict[str, float]:
        """The mean similarity of texts to each group, in the order of the groups: that to its most alike task."""
        vectors_ND = self._encoded(texts)
        found = dict.fromkeys(self.names, -1.0)
        for task in self.tasks.values():
            similarity = float(likeness(vectors_ND, self._encoded(task.instructions)).mean())
            found[task.group] = max(found[task.group], similarity)
        return found

    def part(self, task: str) -> Joined:
        """Take a task out of its group into a new one: what undoes a merge that harmed.

        Raises:
            UnknownNameError: No such task.
            SettingError: The task is alone in its group, or the cap is reached.
        """
        if task not in self.tasks:
            raise UnknownNameError("task", task, self.tasks)
        old, known = self.tasks[task].group, self.tasks[task].instructions
        if len(self.members(old)) == 1:
            raise SettingError(f"the task {task!r} is alone in {old} and cannot be parted from it")
        if len(self.names) >= self.config.cap:
            raise SettingError(f"all {self.config.cap} groups are in use; raise the cap to part {task!r} from {old}")
        similarity = self.similarities(known)[old]
        joined = Joined(task, self._fresh(), similarity, old, True, f"was parted from {old} into a group of its own")
        return self._put(joined, set(known), self.tasks[task].digest)

    def threshold(self) -> Threshold:
        """The similarity from which a task joins a group: as set, or between the two kinds that are known.

        Within tasks: each instruction with the others of its task. Between: each with the most alike task of
        another group. Where fewer than ten of a kind are known, those of the built-in instructions stand in.
        """
        if self.config.threshold is not None:
            return Threshold(self.config.threshold, "as set")
        known = separation(
            {name: self._encoded(task.instructions) for name, task in self.tasks.items()},
            {name: task.group for name, task in self.tasks.items()},
        )
        within, between = known.within, known.between
        own = [kind for kind, values in (("within", within), ("between", between)) if len(values) >= _ENOUGH]
        both = Similarities(
            within if "within" in own else self._built_in.within,
            between if "between" in own else self._built_in.between,
        )
        source = f"the project's tasks ({' and '.join(own)})" if own else "the built-in instructions"
        return Threshold(both.threshold(), f"calibrated on {source}")

    @cached_property
    def _built_in(self) -> Similarities:
        return built_in_similarities(self.encoder)

    def _choose(self, task: str, texts: Sequence[str]) -> Joined:
        found = self.similarities(texts)
        if not found:
            return Joined(task, self._fresh(), 0.0, None, True, "is the first")
        nearest = max(found, key=lambda group: found[group])
        similarity, limit = found[nearest], self.threshold()
        said = f"similarity {similarity:.3f} to {nearest}, threshold {limit.value:.3f} ({limit.reason})"
        if similarity >= limit.value - _TIE:
            return Joined(task, nearest, similarity, nearest, False, f"joins {nearest}: {said}")
        if len(found) >= self.config.cap:
            reason = f"takes the nearest group {nearest}, as all {self.config.cap} are in use: {said}"
            return Joined(task, nearest, similarity, nearest, False, reason)
        group = self._fresh()
        return Joined(task, group, similarity, nearest, True, f"opens {group}: {said}")

    def _name(self, task: str, digest: str) -> str:
        """What a task is called here."""
        known = self.tasks.get(task)
        return task if known is None or digest in ("", known.digest) else f"{task}-{digest[:8]}"

    def _put(self, joined: Joined, texts: set[str], digest: str) -> Joined:
        self.tasks[joined.task] = GroupedTask(group=joined.group, instructions=tuple(sorted(texts)), digest=digest)
        self.log.append(f"{joined.task} {joined.reason}")
        return joined

    def _fresh(self) -> str:
        """A name that no group has."""
        return f"g{max((_number(task.group) for task in self.tasks.values()), default=0) + 1}"

    def _encoded(self, texts: Sequence[str]) -> Tensor:
        """Vectors [N, D] of texts, each encoded once."""
        new = [text for text in dict.fromkeys(texts) if text not in self._vectors]
        if new:
            self._vectors.update(zip(new, self.encoder.encode(new), strict=True))
        return torch.stack([self._vectors[text] for text in texts])


def _number(group: str) -> int:
    return int(group.removeprefix("g"))
