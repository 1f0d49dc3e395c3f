"""Sentences that say in words what a table or a chart shows."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from perdure.measuring.report import Comparison, MatrixMeasures
from perdure.web import figures
from perdure.web.charts import TRENDS, trend, worst_first
from perdure.web.visible import one_line, visible

_WAYS = {
    "free generation": "The model writes its answer freely, as it would for a user, and the answer is searched for "
    "the expected words. This is the strictest and most honest test.",
    "probability": "The model is shown the new and the old answer and asked which it finds more likely. It can "
    "prefer the right one and still write something else.",
    "teacher-forced": "The model is given the right answer word by word and only has to agree with each next word. "
    "Such figures are higher than what users see; they are here for comparison with published results.",
    "linear probe": "A simple classifier is trained on the model's frozen features of labelled examples and asked "
    "about others. It tells what the features still hold, whether or not the model's own head uses it.",
    "nearest neighbours": "An example is taken for what the labelled examples with the most similar features are. "
    "Nothing is trained.",
    "zero-shot": "An image is taken for the class whose name, as a text, has the most similar features.",
    "log-likelihood": "The model chooses among fixed answers by how likely it finds each; it does not write one.",
}


def setting(value: Any) -> str:
    """A setting as text: lists and odd things as JSON, yes and no as words."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return value
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return f"{value:g}"
    return json.dumps(value, ensure_ascii=False, default=str)


def ways_of_judging(comparisons: Sequence[Comparison]) -> Mapping[str, str]:
    """The ways of judging that occur, each with its explanation, the strictest first."""
    used = {comparison.how for comparison in comparisons}
    return {how: text for how, text in _WAYS.items() if how in used}


def shares(comparisons: Sequence[Comparison]) -> str:
    """The chart of shares in words."""
    parts = (
        f"{one_line(visible(given.label))}: {figures.percent(given.before.value, given.before.n)} before, "
        f"{figures.share(given.after)} after"
        for given in comparisons
    )
    return f"Share before and after with its 95% interval. {'. '.join(parts)}."


def changes(comparisons: Sequence[Comparison]) -> str:
    """The chart of changes in words: how many got clearly worse or better, and the largest loss."""
    trends = [trend(comparison, comparison.difference) for comparison in comparisons]
    worse, better = trends.count(TRENDS[0]), trends.count(TRENDS[2])
    worst = worst_first(comparisons)[0]
    return (
        f"Of {figures.counted(len(comparisons), 'measure')}, {_amount(worse)} clearly worse and {_amount(better)} "
        f"clearly better; a change is clear when its whole interval lies on one side of zero. "
        f"The least favourable: {one_line(visible(worst.label))}, {figures.difference(worst.difference)}."
    )


def _amount(count: int) -> str:
    return "none is" if count == 0 else "1 is" if count == 1 else f"{figures.whole(count)} are"


def reach(matrix: MatrixMeasures) -> float:
    """The largest singular value of the change, as a share of the base's; 0 where it cannot be said."""
    if not matrix.sigma_max_base > 0 or not math.isfinite(matrix.sigma_max_delta):
        return 0.0
    return matrix.sigma_max_delta / matrix.sigma_max_base


def spectrum(matrix: MatrixMeasures) -> str:
    """The chart of one spectrum in words."""
    return (
        f"{visible(matrix.name)}: the largest singular value of the change is "
        f"{figures.number(matrix.sigma_max_solved)} before the restraint and "
        f"{figures.number(matrix.sigma_max_delta)} as applied; that of the original matrix is "
        f"{figures.number(matrix.sigma_max_base)}."
    )


def movement(matrices: Sequence[MatrixMeasures]) -> str:
    """One or two plain sentences on what the movement of the weights means."""
    if not matrices:
        return ""
    over = sum(reach(matrix) >= 1 for matrix in matrices)
    most = max(map(reach, matrices))
    if over:
        return (
            f"In {figures.whole(over)} of {figures.counted(len(matrices), 'changed matrix', 'changed matrices')} the "
            f"change is at least as strong as the strongest direction of the original (up to {figures.ratio(most)}): "
            f"there it can crowd out what the model knew. {_held(matrices)}"
        )
    where = "the changed matrix" if len(matrices) == 1 else f"all {len(matrices)} changed matrices"
    return (
        f"In {where} the change stays weaker than the strongest direction of the original "
        f"(at most {figures.percent(most, 100)} of it), so it does not drown what the model knew. {_held(matrices)}"
    )


def _held(matrices: Sequence[MatrixMeasures]) -> str:
    """What the restraint did; a contraction below a thousandth is rounding."""
    held = sum(matrix.sigma_max_delta < 0.999 * matrix.sigma_max_solved for matrix in matrices)
    if not held:
        return "The restraint had nothing to hold back."
    return f"The restraint held back {figures.whole(held)} of {figures.whole(len(matrices))}."
