"""Sentences that say in words what a table or a chart shows."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from perdure.measuring.report import Comparison, MatrixMeasures
from perdure.web import figures
from perdure.web.charts import TRENDS, trend, worst_first
from perdure.web.reported import told
from perdure.web.visible import one_line, visible
from perdure.web.words import N_, _, counted, in_turn, joined

_WAYS = {
    "free generation": N_(
        "The model writes its answer freely, as it would for a user, and the answer is searched for "
        "the expected words. This is the strictest and most honest test."
    ),
    "probability": N_(
        "The model is shown the new and the old answer and asked which it finds more likely. It can "
        "prefer the right one and still write something else."
    ),
    "teacher-forced": N_(
        "The model is given the right answer word by word and only has to agree with each next word. "
        "Such figures are higher than what users see; they are here for comparison with published results."
    ),
    "linear probe": N_(
        "A simple classifier is trained on the model's frozen features of labelled examples and asked "
        "about others. It tells what the features still hold, whether or not the model's own head uses it."
    ),
    "nearest neighbours": N_(
        "An example is taken for what the labelled examples with the most similar features are. Nothing is trained."
    ),
    "zero-shot": N_("An image is taken for the class whose name, as a text, has the most similar features."),
    "log-likelihood": N_("The model chooses among fixed answers by how likely it finds each; it does not write one."),
}


def setting(value: Any) -> str:
    """A setting as text: lists and odd things as JSON, yes and no as words."""
    if value is None:
        return _("none")
    if isinstance(value, bool):
        return _("yes") if value else _("no")
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
    return {told(how): _(text) for how, text in _WAYS.items() if how in used}


def shares(comparisons: Sequence[Comparison]) -> str:
    """The chart of shares in words."""
    parts = (
        _("{measure}: {before} before, {after} after").format(
            measure=named(given),
            before=figures.percent(given.before.value, given.before.n),
            after=figures.share(given.after),
        )
        for given in comparisons
    )
    return _("Share before and after with its 95% interval. {each}.").format(each=joined(parts))


def named(given: Comparison) -> str:
    """The label of a comparison, on one line."""
    return one_line(visible(told(given.label)))


def changes(comparisons: Sequence[Comparison]) -> str:
    """The chart of changes in words: how many got clearly worse or better, and the largest loss."""
    trends = [trend(comparison, comparison.difference) for comparison in comparisons]
    worse, better = trends.count(TRENDS[0]), trends.count(TRENDS[2])
    worst = worst_first(comparisons)[0]
    return _(
        "Of {measures}, {worse} and {better}; a change is clear when its whole interval lies on one side of zero. "
        "The least favourable: {measure}, {difference}."
    ).format(
        measures=counted("{count} measure", "{count} measures", len(comparisons)),
        worse=counted("{count} is clearly worse", "{count} are clearly worse", worse)
        if worse
        else _("none is clearly worse"),
        better=counted("{count} is clearly better", "{count} are clearly better", better)
        if better
        else _("none is clearly better"),
        measure=named(worst),
        difference=figures.difference(worst.difference),
    )


def reach(matrix: MatrixMeasures) -> float:
    """The largest singular value of the change, as a share of the base's; 0 where it cannot be said."""
    if not matrix.sigma_max_base > 0 or not math.isfinite(matrix.sigma_max_delta):
        return 0.0
    return matrix.sigma_max_delta / matrix.sigma_max_base


def spectrum(matrix: MatrixMeasures) -> str:
    """The chart of one spectrum in words."""
    return _(
        "{matrix}: the largest singular value of the change is {solved} before the restraint and {applied} as applied; "
        "that of the original matrix is {original}."
    ).format(
        matrix=visible(matrix.name),
        solved=figures.number(matrix.sigma_max_solved),
        applied=figures.number(matrix.sigma_max_delta),
        original=figures.number(matrix.sigma_max_base),
    )


def movement(matrices: Sequence[MatrixMeasures]) -> str:
    """One or two plain sentences on what the movement of the weights means."""
    if not matrices:
        return ""
    over = sum(reach(matrix) >= 1 for matrix in matrices)
    most = max(map(reach, matrices))
    if over:
        said = counted(
            "In {over} of {count} changed matrix the change is at least as strong as the strongest direction of the "
            "original (up to {most}): there it can crowd out what the model knew.",
            "In {over} of {count} changed matrices the change is at least as strong as the strongest direction of the "
            "original (up to {most}): there it can crowd out what the model knew.",
            len(matrices),
            over=figures.whole(over),
            most=figures.ratio(most),
        )
        return in_turn(said, _held(matrices))
    said = counted(
        "In the changed matrix the change stays weaker than the strongest direction of the original (at most {most} of "
        "it), so it does not drown what the model knew.",
        "In all {count} changed matrices the change stays weaker than the strongest direction of the original (at most "
        "{most} of it), so it does not drown what the model knew.",
        len(matrices),
        most=figures.percent(most, 100),
    )
    return in_turn(said, _held(matrices))


def _held(matrices: Sequence[MatrixMeasures]) -> str:
    """What the restraint did; a contraction below a thousandth is rounding."""
    held = sum(matrix.sigma_max_delta < 0.999 * matrix.sigma_max_solved for matrix in matrices)
    if not held:
        return _("The restraint had nothing to hold back.")
    return _("The restraint held back {held} of {matrices}.").format(
        held=figures.whole(held), matrices=figures.whole(len(matrices))
    )
