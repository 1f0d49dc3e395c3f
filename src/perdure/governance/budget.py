"""The budget of a lineage: what all its versions together may do to the base, so that small steps cannot add up."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field

from perdure.measuring.report import Report, Verdict


class BudgetLimits(BaseModel):
    """Limits on everything that was done since the base; what is not named has no limit."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    versions: int | None = Field(None, ge=1, description="versions that stand on one another")
    facts: int | None = Field(None, ge=0, description="facts taught, those counted that were overwritten since")
    tasks: int | None = Field(None, ge=0, description="tasks learnt")
    norm_growth: float | None = Field(None, gt=0, description="norm of all changes over that of the changed matrices")
    condition_ratio: float | None = Field(None, ge=1, description="condition number over the base's, of any matrix")
    shift: float | None = Field(None, gt=0, le=2, description="shift of any skill's function vector since the base")
    flops: float | None = Field(None, gt=0, description="floating-point operations of all trainings")


@dataclass(frozen=True)
class Use:
    """How much of one part of the budget is spent.

    Attributes:
        name: The limit's name in the policy.
        words: What it counts.
        limit: What is allowed.
        used: What is spent; None where it is not known.
        unknown: Why it is not known.
    """

    name: str
    words: str
    limit: float
    used: float | None
    unknown: str = ""

    @property
    def share(self) -> float | None:
        """The part of the limit that is spent: 1 when nothing is left."""
        if self.used is None:
            return None
        return self.used / self.limit if self.limit else math.inf if self.used else 0.0


def uses(report: Report, limits: BudgetLimits | None) -> list[Use]:
    """How much of each part of the budget is spent by a version and all that it stands on."""
    if limits is None:
        return []
    known = dict(_used(report))
    return [
        Use(name, _WORDS[name], float(limit), *known[name])
        for name, limit in limits.model_dump(exclude_none=True).items()
    ]


_WORDS = {
    "versions": "versions since the base",
    "facts": "facts taught since the base",
    "tasks": "tasks learnt since the base",
    "norm_growth": "norm of all changes over that of the changed matrices",
    "condition_ratio": "condition number over the base's, of the worst matrix",
    "shift": "shift of the function vector that moved most since the base",
    "flops": "floating-point operations of all trainings since the base",
}
_OLD = "the report was made before this was counted; measure the version again"


def _used(report: Report) -> Iterator[tuple[str, tuple[float | None, str]]]:
    spent = report.spent
    for name in ("versions", "facts", "tasks"):
        yield name, (None, _OLD) if spent is None else (float(getattr(spent, name)), "")
    untold = _OLD if spent is None else "not every training noted it"
    flops = None if spent is None else spent.flops
    yield "flops", (flops, "" if flops is not None else untold)
    yield "norm_growth", (norm_growth(report), "")
    ratios = [matrix.condition_after / matrix.condition_before for matrix in report.matrices]
    whole = all(math.isfinite(ratio) for ratio in ratios)
    yield "condition_ratio", (max(ratios, default=1.0), "") if whole else (None, "a matrix of the base is singular")
    yield "shift", _shift(report)


def norm_growth(report: Report) -> float:
    """sqrt(Σ‖ΔW‖²) / sqrt(Σ‖W_base‖²) over the changed matrices; 0 when none was changed."""
    changed = [matrix for matrix in report.matrices if matrix.relative_norm > 0]
    total = math.fsum(matrix.norm**2 for matrix in changed)
    base = math.fsum((matrix.norm / matrix.relative_norm) ** 2 for matrix in changed)
    return math.sqrt(total / base) if base else 0.0


def _shift(report: Report) -> tuple[float | None, str]:
    skills = report.skills
    if skills is None or skills.before != report.base:
        return None, f"skills were not compared with {report.base}; run perdure vectors compare"
    shifts = [skill.shift for skill in skills.skills if skill.shift is not None]
    return (max(shifts), "") if shifts else (None, "no skill's vector could be told")


def budget_verdicts(report: Report, limits: BudgetLimits | None) -> Iterator[Verdict]:
    """One verdict for each part of the budget; inconclusive where it is not known what was spent."""
    for use in uses(report, limits):
        gate = f"budget: {use.words}"
        if use.used is None:
            yield Verdict(gate=gate, verdict="inconclusive", reason=use.unknown)
            continue
        verdict = "pass" if use.used <= use.limit else "fail"
        yield Verdict(gate=gate, verdict=verdict, reason=f"{use.used:.4g}; at most {use.limit:.4g} may be spent")
