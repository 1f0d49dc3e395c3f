"""The pool: one adapter for each group of tasks on a frozen base, every version kept, each group undone on its own.

After Qiao et al., "Large Continual Instruction Assistant" (LCIA), ICML 2025, arXiv 2410.10868.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from perdure.content import digest_bytes, digest_json, fresh_folder
from perdure.deltas import Delta
from perdure.deltas.adapter_files import adapter_files, read_adapter
from perdure.errors import SettingError, UnknownNameError
from perdure.tuning.grouping import GroupingConfig, Groups, Joined
from perdure.tuning.pool_files import (
    ROUTER,
    PoolState,
    Version,
    Versions,
    checked_folder,
    read_state,
    write_files,
    write_state,
)
from perdure.tuning.routing import Router, RoutingConfig
from perdure.tuning.similarity import Encoder


@dataclass(frozen=True)
class GroupSize:
    """What a group's adapter takes up.

    Attributes:
        parameters: Of the version in use.
        size: Its bytes.
        versions: How many are kept.
        kept: Bytes of all of them.
    """

    parameters: int
    size: int
    versions: int
    kept: int


@dataclass(frozen=True)
class Growth:
    """What all adapters add to the base.

    Attributes:
        groups: By group.
        parameters: Of all adapters in use.
        size: Their bytes.
        kept: Bytes of all versions.
        share: Parameters in use by those of the base.
    """

    groups: dict[str, GroupSize]
    parameters: int
    size: int
    kept: int
    share: float


class Pool:
    """Adapters by group in a folder; every change is on disk when the call returns. One writer at a time.

    Args:
        folder: Where it lies.
        state: What its `router.json` says.
        groups: Its groups.
    """

    def __init__(self, folder: Path, state: PoolState, groups: Groups) -> None:
        self.folder = folder
        self.groups = groups
        self._state = state

    @classmethod
    def create(
        cls, folder: Path, groups: Groups, *, base: str, base_parameters: int, routing: RoutingConfig | None = None
    ) -> "Pool":
        """A new pool.

        Args:
            folder: Where; nothing may be there yet.
            groups: The tasks' groups, which may be empty.
            base: Folder or hub id that the adapters are to name as their base.
            base_parameters: The base's parameters.
            routing: What is done with requests.

        Raises:
            SettingError: The folder has a pool already.
        """
        if (folder / ROUTER).exists():
            raise SettingError(f"{folder} holds a pool already; open it, or name another folder")
        state = PoolState(
            base=base,
            base_parameters=base_parameters,
            routing=routing or RoutingConfig(),
            threshold=groups.threshold().value,
            groups=groups.state(),
        )
        pool = cls(folder, state, groups)
        pool._save()
        return pool

    @classmethod
    def open(cls, folder: Path, encoder: Encoder | None = None) -> "Pool":
        """The pool in a folder; its encoder is made again where none is given.

        Raises:
            IntegrityError: No pool, or a damaged one.
        """
        state = read_state(folder)
        return cls(folder, state, Groups.resumed(state.groups, encoder))

    @property
    def base(self) -> str:
        """What the adapters name as their base."""
        return self._state.base

    @property
    def routing(self) -> RoutingConfig:
        """What is done with requests."""
        return self._state.routing

    @property
    def threshold(self) -> float:
        """The similarity from which a group answers."""
        return self._state.threshold

    def settle(self, grouping: GroupingConfig, routing: RoutingConfig) -> None:
        """Take other settings from now on; groups and adapters stay as they are."""
        self.groups.config = grouping
        self._save(routing=routing)

    @property
    def log(self) -> tuple[str, ...]:
        """Every change of a version, in words; choices of groups are in `groups.log`."""
        return self._state.log

    def join(self, task: str, instructions: Sequence[str], digest: str = "") -> Joined:
        """Put a task into a group; see `Groups.join`."""
        joined = self.groups.join(task, instructions, digest)
        self._save()
        return joined

    def part(self, task: str) -> Joined:
        """Take a task out of its group into a new one, and the group back to its last version without the task.

        This undoes a merge. Where every version has the task in it, the version stays, and the task's requests
        are no longer sent there.

        Raises:
            UnknownNameError: No such task.
            SettingError: The task is alone in its group, or the cap is reached.
        """
        joined = self.groups.part(task)
        group = joined.nearest or joined.group
        held = self._versions(group)
        place = held.current
        while place is not None and task in held.versions[place].tasks:
            place = held.versions[place].parent
        if place is None or place == held.current:
            self._save()
        else:
            self._use(group, place, f"{task} was parted from it")
        return joined

    def put(self, group: str, delta: Delta, task: str, *, transposed: bool = False, note: str = "") -> Version:
        """Make a delta the group's adapter, as a new version that stands on the one in use; the earlier ones stay.

        Args:
            group: The group.
            delta: Low-rank changes of matrices, all that the group's adapter is to be.
            task: The task of the group that it learnt, besides those of the version in use.
            transposed: The matrices are stored [I, O] (GPT-2's Conv1D).
            note: Why it was made.

        Raises:
            UnknownNameError: No such group, or the task is in another one.
            SettingError: No adapter can hold the delta.
        """
        held, parent = self._versions(group), self.current(group)
        if task not in self.groups.members(group):
            raise UnknownNameError("task", task, self.groups.members(group))
        tasks = tuple(dict.fromkeys((*(parent.tasks if parent else ()), task)))
        files = adapter_files(delta.check_finite(), self._state.base, transposed=transposed)
        digest = digest_json({name: digest_bytes(data) for name, data in files.items()})
        version = Version(
            digest=digest,
            folder=f"{group}/{digest[:16]}",
            parent=held.current,
            tasks=tasks,
            parameters=sum(tensor.numel() for change in delta.changes.values() for tensor in change.tensors()),
            size=sum(map(len, files.values())),
            note=note,
        )
        write_files(self.folder / version.folder, files)
        said = f"{group}: version {len(held.versions)} for {', '.join(tasks)}{note and f' ({note})'}"
        self._keep(group, Versions(versions=(*held.versions, version), current=len(held.versions)), said)
        return version

    def rollback(self, group: str) -> Version | None:
        """Go back to the version before the one in use; None: the group has no adapter now, and the base answers.

        Tasks that the earlier version was not trained for are not sent to it.

        Raises:
            SettingError: The group has no adapter.
        """
        held = self._versions(group)
        if held.current is None:
            raise SettingError(f"{group} has no adapter in use; there is nothing to go back from")
        self._use(group, held.versions[held.current].parent, "rolled back")
        return self.current(group)

    def current(self, group: str) -> Version | None:
        """The version of a group's adapter that is in use."""
        held = self._versions(group)
        return None if held.current is None else held.versions[held.current]

    def versions(self, group: str) -> tuple[Version, ...]:
        """All versions of a group's adapter."""
        return self._versions(group).versions

    def adapter(self, group: str) -> Path:
        """The folder of the group's adapter, checked, for `PeftModel.from_pretrained`.

        Raises:
            SettingError: The group has no adapter.
            IntegrityError: The adapter is not what was put there.
        """
        version = self.current(group)
        if version is None:
            raise SettingError(f"{group} has no adapter in use; put one, or answer with the base")
        return checked_folder(self.folder, version)

    def delta(self, group: str) -> Delta:
        """The group's adapter as a delta of the base."""
        return read_adapter(self.adapter(group))[1]

    def router(self) -> Router:
        """Who answers which request, among the groups that have an adapter."""
        served = {}
        for group in self.groups.names:
            version = self.current(group)
            if version is not None:
                tasks = [task for task in self.groups.members(group) if task in version.tasks]
                served[group] = [self.groups.tasks[task].instructions for task in tasks]
        return Router(
            self.groups.encoder,
            {group: tasks for group, tasks in served.items() if tasks},
            threshold=self._state.threshold,
            fallback=self._state.routing.fallback,
        )

    def growth_report(self) -> Growth:
        """What the adapters add to the base: parameters and bytes, by group and in all."""
        groups = {}
        for group in self.groups.names:
            version, held = self.current(group), self.versions(group)
            kept = sum({each.folder: each.size for each in held}.values())
            in_use = (version.parameters, version.size) if version else (0, 0)
            groups[group] = GroupSize(*in_use, len(held), kept)
        parameters = sum(each.parameters for each in groups.values())
        size, kept = sum(each.size for each in groups.values()), sum(each.kept for each in groups.values())
        return Growth(groups, parameters, size, kept, parameters / self._state.base_parameters)

    @property
    def kept(self) -> tuple[Version, ...]:
        """All versions of all adapters."""
        return tuple(version for held in self._state.adapters.values() for version in held.versions)

    def verify(self, known: Collection[str] = ()) -> None:
        """Check every version that is kept.

        Args:
            known: Digests of adapters that were found whole before, and are not read again.

        Raises:
            IntegrityError: One is missing or changed.
            UnsafeFileError: Something else lies with one.
        """
        for version in self.kept:
            if version.digest not in known:
                checked_folder(self.folder, version)

    def export(self, folder: Path) -> None:
        """Write the adapters in use, one folder for each group, with their router file: a pool without a past.

        Raises:
            SettingError: The folder is there and not empty.
        """
        adapters = {}
        with fresh_folder(folder) as scratch:
            for group in self.groups.names:
                version = self.current(group)
                if version is not None:
                    source = self.adapter(group)
                    write_files(scratch / group, {path.name: path.read_bytes() for path in source.iterdir()})
                    alone = version.model_copy(update={"folder": group, "parent": None})
                    adapters[group] = Versions(versions=(alone,), current=0)
            write_state(scratch, self._state.model_copy(update={"adapters": adapters, "log": ()}))

    def _versions(self, group: str) -> Versions:
        if group not in self.groups.names:
            raise UnknownNameError("group", group, self.groups.names)
        return self._state.adapters.get(group, Versions())

    def _use(self, group: str, place: int | None, why: str) -> None:
        what = "no adapter" if place is None else f"version {place}"
        self._keep(group, self._versions(group).model_copy(update={"current": place}), f"{group}: {what} in use, {why}")

    def _keep(self, group: str, versions: Versions, said: str) -> None:
        self._save(adapters={**self._state.adapters, group: versions}, log=(*self._state.log, said))

    def _save(self, **changes: object) -> None:
        """Write the state with these changes and with the groups as they are; in memory only once it is on disk."""
        routing = changes.get("routing", self._state.routing)
        assert isinstance(routing, RoutingConfig)
        threshold = self.groups.threshold().value if routing.threshold is None else routing.threshold
        kept = {"groups": self.groups.state(), "threshold": threshold, **changes}
        state = self._state.model_copy(update=kept)
        write_state(self.folder, state)
        self._state = state
