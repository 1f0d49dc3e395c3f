"""What differs between two versions, or between any two checkpoints of one architecture."""

from typing import TYPE_CHECKING

import torch
from pydantic import BaseModel, ConfigDict

from perdure.deltas import Change, difference, largest_singular_value, singular_values
from perdure.errors import ModelError
from perdure.measuring import Outcomes, Report, build_retention
from perdure.measuring.report import Comparison
from perdure.measuring.ripple_measures import compare_cases, summarise
from perdure.models import Checkpoint, resolve
from perdure.workspace.measurements import known_outcomes
from perdure.workspace.records import Version

if TYPE_CHECKING:
    from torch import Tensor

    from perdure.workspace.workspace import Workspace

_SHOWN = 20
_RANK_LIMIT = 2048
_NOISE = 1e-4  # singular values below this share of the largest are rounding


class Move(BaseModel):
    """How far one tensor moved.

    Attributes:
        name: The tensor's name.
        rank: The numerical rank of the change; None for vectors, full rank, or very large matrices.
        norm: ‖ΔW‖_F.
        relative_norm: ‖ΔW‖_F / ‖W‖_F.
        sigma_max: The largest singular value of the change.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    rank: int | None
    norm: float
    relative_norm: float
    sigma_max: float


class Diff(BaseModel):
    """Two checkpoints compared.

    Attributes:
        first: The name of the first.
        second: The name of the second.
        tensors: How many tensors there are.
        changed: How many differ.
        matrices: The tensors that moved most, relative to their size.
        learnt: (question, answer before, answer after) of the facts that the second was asked to learn.
        lost: The same for retention items that were right before.
        ripple: Questions that follow from the facts asked for after the first, before and after each was taught.
        ripple_summary: What these figures say.
        comparisons: Retention, where both were measured.
        note: What to do for a fuller answer.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    first: str
    second: str
    tensors: int
    changed: int
    matrices: tuple[Move, ...]
    learnt: tuple[tuple[str, str, str], ...] = ()
    lost: tuple[tuple[str, str, str], ...] = ()
    ripple: tuple[Comparison, ...] = ()
    ripple_summary: str = ""
    comparisons: tuple[Comparison, ...] = ()
    note: str = ""


def diff_versions(shop: "Workspace", first: Version, second: Version) -> Diff:
    """What was learnt and forgotten from `first` to `second`, and where the weights moved.

    Nothing is run: measures are shown where both versions were measured before.
    """
    hashes = [{name: record.hash for name, record in version.manifest.tensors.items()} for version in (first, second)]
    names = sorted(name for name in hashes[0].keys() | hashes[1] if hashes[0].get(name) != hashes[1].get(name))
    moves = []
    for name in names:
        before, after = _both(shop, (first, second), name)
        if not torch.equal(before, after):
            moves.append(_move(name, before, after))
    reports = _reports_between(shop, first, second)
    followed = [case for report in reports if report.ripple for case in report.ripple.cases]
    old, new = known_outcomes(shop, first), known_outcomes(shop, second)
    retention = build_retention(old, new) if old and new else None
    unmeasured = " and ".join(v.name for v, found in ((first, old), (second, new)) if found is None)
    return Diff(
        first=first.name,
        second=second.name,
        tensors=len(hashes[0].keys() | hashes[1]),
        changed=len(moves),
        matrices=_largest(moves),
        learnt=tuple(_learnt(reports)),
        lost=tuple(_lost(old, new)) if old and new else (),
        ripple=compare_cases(followed),
        ripple_summary=summarise(followed),
        comparisons=(retention.overall, *retention.parts) if retention else (),
        note=_note(shop, second, unmeasured),
    )


def _note(shop: "Workspace", second: Version, unmeasured: str) -> str:
    if shop.is_encoder:
        return f"What an encoder recognises stands in the report of a version: perdure report {second.name}."
    return f"Not measured: {unmeasured}. Run perdure measure for what was kept." if unmeasured else ""


def _both(shop: "Workspace", versions: tuple[Version, Version], name: str) -> "tuple[Tensor, Tensor]":
    """A tensor in both versions; what only one of them has, the bias that carries a vector, is zero in the other."""
    had = [name in version.manifest.tensors for version in versions]
    found = [shop.archive.tensors(version, [name])[name] for version, has in zip(versions, had, strict=True) if has]
    zero = torch.zeros_like(found[0])
    return (found[0] if had[0] else zero), (found[-1] if had[1] else zero)


def diff_checkpoints(first: str, second: str) -> Diff:
    """Where the weights moved between two checkpoints made by any tool, tensor by tensor.

    Raises:
        ModelError: They differ in tensor names, shapes or dtypes.
    """
    old, new = (Checkpoint.open(resolve(source)) for source in (first, second))
    if old.entries.keys() != new.entries.keys():
        odd = sorted(old.entries.keys() ^ new.entries.keys())
        raise ModelError(f"{first} and {second} differ in {len(odd)} tensor names, for example {odd[0]}")
    moves = []
    for name in sorted(old.entries):
        before, after = old.tensor(name), new.tensor(name)
        if before.shape != after.shape:
            raise ModelError(f"{name} has shape {tuple(before.shape)} in {first}, {tuple(after.shape)} in {second}")
        if before.dtype != after.dtype:
            raise ModelError(
                f"{name} is {before.dtype} in {first} and {after.dtype} in {second}; load both in one dtype"
            )
        if not torch.equal(before, after):
            moves.append(_move(name, before, after))
    return Diff(first=first, second=second, tensors=len(old.entries), changed=len(moves), matrices=_largest(moves))


def _move(name: str, before: "Tensor", after: "Tensor") -> Move:
    change = difference({name: before}, {name: after}).changes[name]
    norm = change.norm()
    return Move(
        name=name,
        rank=_rank(change),
        norm=norm,
        relative_norm=norm / max(float(before.double().norm()), 1e-30),
        sigma_max=largest_singular_value(change.value(), tolerance=1e-5) if len(change.shape) == 2 else norm,
    )


def _rank(change: Change) -> int | None:
    if len(change.shape) != 2 or min(change.shape) > _RANK_LIMIT:
        return None
    values = singular_values(change)
    rank = int((values > _NOISE * values[0]).sum())
    return rank if rank < min(change.shape) else None


def _largest(moves: list[Move]) -> tuple[Move, ...]:
    return tuple(sorted(moves, key=lambda move: -move.relative_norm)[:_SHOWN])


def _reports_between(shop: "Workspace", first: Version, second: Version) -> list[Report]:
    """The reports of the versions from after `first` up to `second`, the oldest first, where there are any."""
    older = {version.id for version in shop.archive.lineage(first)}
    found = [shop.report(version) for version in shop.archive.lineage(second) if version.id not in older]
    return [report for report in found if report is not None]


def _learnt(reports: list[Report]) -> list[tuple[str, str, str]]:
    """Questions of the facts asked for, answered rightly after, as the reports of those versions have them."""
    cases = [case for report in reports if report.edits is not None for case in report.edits.cases]
    right = [case for case in cases if case.kind == "prompt" and case.after_ok]
    return [(case.prompt, case.before, case.after) for case in right[:_SHOWN]]


def _lost(old: Outcomes, new: Outcomes) -> list[tuple[str, str, str]]:
    rows = [
        (then.item, then.written, now.written)
        for part, answers in old.retention.items()
        for then, now in zip(answers, new.retention.get(part, ()), strict=False)
        if then.ok and not now.ok
    ]
    return rows[:_SHOWN]
