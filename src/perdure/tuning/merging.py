"""Whether a task may share an adapter: what it costs the group's earlier tasks, on rows held out."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scipy.stats import t as student

from perdure.errors import SettingError


@dataclass(frozen=True)
class Merge:
    """Whether a task stays in the group it joined.

    Attributes:
        merged: False: it is to be parted from the group and gets one of its own.
        difference: The mean change of the earlier tasks' loss, in the unit of the losses; above 0 is worse.
        low: Lower end of its 95% interval.
        high: Upper end.
        n: Rows held out.
        reason: The verdict in words.
    """

    merged: bool
    difference: float
    low: float
    high: float
    n: int
    reason: str


def check_merge(before_losses: Sequence[float], after_losses: Sequence[float], *, allowed: float = 0.0) -> Merge:
    """Whether the earlier tasks of a group bear its new adapter: not where their loss rose for sure.

    Near-identical instructions can ask for inverse work, which no similarity of texts sees. The paired differences
    of the losses are taken over rows of the earlier tasks that were not trained on, with Student's interval; the
    merge is refused where even the lower end lies above what is allowed. A harm smaller than the interval is wide
    is not seen: the reason gives the interval, and more rows make it narrower.

    Args:
        before_losses: Loss of each row with the group's adapter of before.
        after_losses: The same with the new adapter.
        allowed: Rise of the mean that is put up with.

    Raises:
        SettingError: Fewer than two rows, other numbers of rows, or losses of before that are not finite.
    """
    n = len(before_losses)
    if n != len(after_losses) or n < 2 or not all(map(math.isfinite, before_losses)):
        raise SettingError(
            "a merge is judged on the finite losses of the same rows before and after, at least two; "
            f"given {n} and {len(after_losses)}"
        )
    if not all(map(math.isfinite, after_losses)):
        return Merge(False, math.inf, math.inf, math.inf, n, "refused: a loss of the earlier tasks is not finite")
    differences = [after - before for before, after in zip(before_losses, after_losses, strict=True)]
    mean = math.fsum(differences) / n
    variance = math.fsum((value - mean) ** 2 for value in differences) / (n - 1)
    reach = float(student.ppf(0.975, n - 1)) * math.sqrt(variance / n)
    merged = mean - reach <= allowed
    verdict = "merged" if merged else "refused"
    said = f"{verdict}: the earlier tasks' loss changed by {mean:+.4f} ({mean - reach:+.4f} to {mean + reach:+.4f}"
    reason = f"{said}, n {n}), where {allowed:+.4f} is allowed"
    return Merge(merged, mean, mean - reach, mean + reach, n, reason)
