"""Watching a long edit: after each batch, how far the weights have moved, and what is kept of the facts so far."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perdure.content import write_atomic
from perdure.deltas import Delta
from perdure.editing.method import Progressed
from perdure.measuring.course import Cohort, Course, Growth
from perdure.measuring.sequences import by_age, growth_of, in_force, knows
from perdure.workspace.measurements import measure_change
from perdure.workspace.records import Version
from perdure.workspace.runs import EditPlan
from perdure.workspace.updates import applied_since_base, solved_since_base

if TYPE_CHECKING:
    from perdure.workspace.workspace import Workspace


class Watch:
    """Looks at an edit after each batch, and ends it where a limit of the policy is passed and the plan says so.

    Attributes:
        done: Facts taught so far.
        passed: The first limit that was passed, in words; empty while all hold.
        stopped: Whether the edit was ended there.
    """

    def __init__(self, shop: "Workspace", parent: Version, plan: EditPlan, network: tuple[Any, Any]) -> None:
        self._shop, self._plan, self._network = shop, plan, network
        self._base = shop.archive.lineage(parent)[0]
        self._before = applied_since_base(shop.archive, parent), solved_since_base(shop.archive, parent)
        self._earlier = shop.facts_in_force(parent)
        self._file = shop.folder / "work" / plan.digest / "course.json"
        self.course = _seen(self._file)
        self.done, self.passed, self.stopped = 0, self._limit(self.course.growth), False

    def ending(self) -> dict[str, Any]:
        """What the recipe says of a limit that was passed."""
        if not self.passed:
            return {}
        return {
            "limit": self.passed,
            "stopped": {"after": self.done, "of": len(self._plan.facts)} if self.stopped else None,
        }

    def __call__(self, now: Progressed) -> bool:
        """Look at the edit as it stands; true ends it."""
        self.done = now.done
        taught = len(self._earlier) + now.done
        applied, solved = self._before[0] + now.step, self._before[1] + now.total
        growth = growth_of(measure_change(self._shop, self._base, applied, Delta(solved.changes)), taught)
        cohorts = self._asked_again(now.done, taught)
        seen = self.course
        self.course = Course(growth=(*seen.growth, *growth), cohorts=(*seen.cohorts, *cohorts))
        write_atomic(self._file, self.course.model_dump_json().encode())
        self.passed = self._limit(self.course.growth)
        self.stopped = bool(self.passed) and self._plan.stop_at_limit
        return self.stopped

    def _asked_again(self, done: int, taught: int) -> list[Cohort]:
        """All facts so far by age, at every `rescore` facts and at the end."""
        every, size = self._plan.rescore, self._plan.batch_size
        if not every or (done // every == max(0, done - size) // every and done < len(self._plan.facts)):
            return []
        facts = in_force([*self._earlier, *self._plan.facts[:done]])
        return by_age(knows(*self._network, facts, self._shop.progress), taught)

    def _limit(self, growth: Sequence[Growth]) -> str:
        limits = self._shop.policy.weights
        for found in growth:
            for words, value, limit in (
                ("the condition number over the base's", found.condition_ratio, limits.condition_ratio),
                ("the norm of the change over the matrix's", found.norm_ratio, limits.norm_ratio),
                ("the largest singular value of the change over the base's", found.sigma_ratio, limits.sigma_ratio),
            ):
                if limit is not None and value > limit:
                    seen = f"{words} is {value:.2f} in {found.matrix}"
                    return f"after {found.facts} facts, {seen}; the policy allows {limit}"
        return ""


def _seen(file: Path) -> Course:
    """What was seen of an edit before it was interrupted; nothing if there is none or it is damaged."""
    try:
        return Course.model_validate_json(file.read_bytes())
    except (OSError, ValueError):
        return Course()
