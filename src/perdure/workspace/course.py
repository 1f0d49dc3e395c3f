"""Watching a long edit: after each batch, how far the weights have moved, and what is kept of the facts so far."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perdure.content import write_atomic
from perdure.deltas import Delta
from perdure.editing.method import Progressed
from perdure.measuring.course import Cohort, Course, Growth, TradeOff
from perdure.measuring.sequences import by_age, growth_of, in_force, knows
from perdure.workspace.measurements import measure_change
from perdure.workspace.records import Version
from perdure.workspace.runs import EditPlan

if TYPE_CHECKING:
    from perdure.workspace.workspace import Workspace


class Watch:
    """Looks at an edit after each batch, and ends it where a limit of the policy is passed and the plan says so.

    What is looked at is what would be stored if the edit ended there. Where the strength of the restraint is chosen at
    the end, that is PRUNE from σ* until then.

    Attributes:
        course: What was seen.
        done: Facts taught so far.
        passed: The first limit that was passed, in words; empty while all hold.
        stopped: Whether the edit was ended there, before its last fact.
    """

    def __init__(
        self,
        shop: "Workspace",
        parent: Version,
        plan: EditPlan,
        network: tuple[Any, Any],
        *,
        before: tuple[Delta, Delta],
        restrained: Callable[[Delta], Delta],
    ) -> None:
        """A watch over an edit of `parent`.

        Args:
            shop: The workspace.
            parent: The version that is edited.
            plan: The edit.
            network: The parent's model, which carries the edit while it is solved, and its tokenizer.
            before: What was solved since the base, and what of it the parent's weights carry.
            restrained: From what is solved on the parent to what would be added to its weights.
        """
        self._shop, self._plan, self._network = shop, plan, network
        self._limits = shop.policy.weights  # a policy that cannot be read is told before the work, not after
        self._base = shop.archive.lineage(parent)[0]
        self._before, self._restrained = before, restrained
        self._earlier = shop.facts_in_force(parent)
        self._file = shop.folder / "work" / plan.digest / "course.json"
        self.course = _seen(self._file)
        self.done, self.passed, self.stopped = 0, "", False

    def ending(self) -> dict[str, Any]:
        """What the recipe says of a limit that was passed."""
        if not self.passed:
            return {}
        return {
            "limit": self.passed,
            "stopped": {"after": self.done, "of": len(self._plan.facts)} if self.stopped else None,
        }

    def __call__(self, now: Progressed) -> bool:
        """Look at the edit as it stands, unless that was done before an interruption; true ends it."""
        self.done = now.done
        seen, taught = self.course, len(self._earlier) + now.done
        if all(row.facts != taught for row in seen.growth):
            growth = self._growth(now.total, now.step if self._plan.each_batch else self._restrained(now.total))
            cohorts = self._asked_again(now.done, taught)
            self.course = Course(growth=(*seen.growth, *growth), cohorts=(*seen.cohorts, *cohorts))
            write_atomic(self._file, self.course.model_dump_json().encode())
        self.passed = self._limit([row for row in self.course.growth if row.facts <= taught])
        self.stopped = bool(self.passed) and self._plan.stop_at_limit and now.done < len(self._plan.facts)
        return self.stopped

    def settle(self, solved: Delta, step: Delta, curve: Sequence[TradeOff]) -> None:
        """Look at what is stored once the strength of the restraint was chosen, in place of the last look.

        Args:
            solved: What was solved.
            step: What is added to the parent's weights.
            curve: The strengths that were tried.
        """
        taught = len(self._earlier) + self.done
        growth = [row for row in self.course.growth if row.facts != taught] + self._growth(solved, step)
        self.course = self.course.model_copy(update={"growth": tuple(growth), "trade_off": tuple(curve)})
        if not self.stopped:
            self.passed = self._limit([row for row in growth if row.facts == taught])

    def _growth(self, solved: Delta, step: Delta) -> list[Growth]:
        """How far the weights are from the base with `step` on the parent."""
        changes = Delta((self._before[0] + solved).changes)
        matrices = measure_change(self._shop, self._base, self._before[1] + step, changes)
        return growth_of(matrices, len(self._earlier) + self.done)

    def _asked_again(self, done: int, taught: int) -> list[Cohort]:
        """All facts so far by age, at every `rescore` facts and at the end."""
        every, size = self._plan.rescore, self._plan.batch_size
        if not every or (done // every == max(0, done - size) // every and done < len(self._plan.facts)):
            return []
        facts = in_force([*self._earlier, *self._plan.facts[:done]])
        return by_age(knows(*self._network, facts, self._shop.progress), taught)

    def _limit(self, growth: Sequence[Growth]) -> str:
        limits = self._limits
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
