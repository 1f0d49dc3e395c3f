"""The tasks of a tuned lineage as Vega-Lite specifications, each with what it says in words.

R as a heat-map, its course over the versions, and the losses and penalties of the training.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from perdure.measuring.continual import TaskMeasures
from perdure.measuring.shares import Share
from perdure.web import figures
from perdure.web.charts import ACCENT, INK, MUTED, SAME, Spec, look
from perdure.web.tasks import TASK_LIMIT, mean, names
from perdure.web.visible import capital, one_line, visible
from perdure.web.words import N_, _, joined, listed

_PENALTY = "regularizer/"
_LOSSES = {"loss": N_("rows trained on"), "eval_loss": N_("rows held out")}
_PAPER = "var(--paper)"
_ROW, _HEIGHT, _SMALL = 34, 220, 130
_DOTS = 30  # points of a curve from which on they are not drawn
_DASHES = ([6, 3], [2, 2], [8, 3, 2, 3], [1, 3], [10, 4], [4, 1])


@dataclass(frozen=True)
class Curve:
    """What was logged of one figure during the training: (step, value)."""

    name: str
    points: Sequence[tuple[float, float]]


def is_sequence(found: TaskMeasures) -> bool:
    """Whether there is a course to show: two rows of R at least."""
    return len(found.stages) > 2 and bool(found.tasks)


def matrix_words(found: TaskMeasures) -> str:
    """The heat-map in words."""
    called, (first, last) = names(found.tasks), (found.stages[0], found.stages[-1])
    parts = [
        _("{task}: {before} in {first}, {after} in {last}").format(
            task=called[task.digest],
            before=_percent(first.exact[task.digest]),
            first=first.version,
            after=_percent(last.exact[task.digest]),
            last=last.version,
        )
        for task in found.tasks[-TASK_LIMIT:]
        if task.digest in first.exact and task.digest in last.exact
    ]
    return _("Exactly right answers by task and version. {each}.").format(each=joined(parts))


def _percent(share: Share) -> str:
    return figures.percent(share.value, share.n)


def matrix_chart(found: TaskMeasures) -> Spec:
    """A cell for each task and version, the darker the more is right; framed where the task was learnt."""
    shown = found.tasks[-TASK_LIMIT:]
    called = names(found.tasks)
    values = [_cell(called[task.digest], stage.version, stage.exact[task.digest], learnt=stage.learnt == task.digest)
              for stage in found.stages for task in shown if task.digest in stage.exact]  # fmt: skip
    order = {"x": [stage.version for stage in found.stages], "y": [called[task.digest] for task in shown]}
    axis = {"domain": False, "ticks": False, "grid": False}
    scale = {"paddingInner": 0.03, "paddingOuter": 0}
    place: Spec = {
        "x": {"field": "version", "type": "ordinal", "sort": order["x"], "scale": scale,
              "axis": {**axis, "title": _("Version, the oldest first"), "labelAngle": 0, "labelOverlap": True}},
        "y": {"field": "task", "type": "nominal", "sort": order["y"], "scale": scale,
              "axis": {**axis, "title": None, "labelColor": INK, "labelFontSize": 13, "labelLimit": 220}},
    }  # fmt: skip
    # Strength by opacity: a colour of the page has no shades that could be computed.
    strength = {"field": "right", "type": "quantitative", "scale": {"domain": [0, 1], "range": [0, 1]}, "legend": None}
    tip = {"field": "figures", "type": "nominal"}
    colour = {"condition": {"test": "datum.right > 0.7", "value": _PAPER}, "value": INK}
    layers: list[Spec] = [
        {"mark": {"type": "rect", "fill": ACCENT}, "encoding": {**place, "opacity": strength, "tooltip": tip}},
        {"mark": {"type": "rect", "fillOpacity": 0, "stroke": INK, "strokeWidth": 1.5},
         "transform": [{"filter": "datum.learnt"}], "encoding": place},
    ]  # fmt: skip
    if len(found.stages) <= 16:
        text = {"field": "said", "type": "nominal"}
        layers.append({"mark": {"type": "text", "fontSize": 12}, "encoding": {**place, "text": text, "color": colour}})
    return {
        "description": matrix_words(found),
        "width": "container",
        "height": _ROW * len(shown),
        "data": {"values": values},
        "layer": layers,
        "view": {"fill": "var(--panel)", "stroke": None},
        "config": look(),
    }


def _cell(task: str, version: str, share: Share, *, learnt: bool) -> Spec:
    said = _percent(share)
    return {
        "task": task,
        "version": version,
        "right": round(share.value, 4),
        "said": said,
        "learnt": learnt,
        "figures": f"{listed((task, version))}: {figures.share(share)}",
    }


def course_words(found: TaskMeasures) -> str:
    """The curves in words."""
    if found.exact is None:
        return ""
    return _(
        "Exactly right answers by version, a line for each task from where it was learnt, and their average, which is "
        "{average} in {version}."
    ).format(average=mean(found.exact.average), version=found.stages[-1].version)


def course_chart(found: TaskMeasures, *, narrow: bool = False) -> Spec:
    """Right answers over the versions: a line for each task from where it was learnt, and the average of those."""
    called, shown = names(found.tasks), found.tasks[-len(_DASHES) :]
    stages = found.stages[1:]
    since: dict[str, int] = {}
    for at, stage in enumerate(stages):
        since.setdefault(stage.learnt, at)
    rows = [_point(called[task.digest], stage.version, stage.exact[task.digest].value)
            for task in shown for stage in stages[since[task.digest] :]]  # fmt: skip
    averages = []
    for at, stage in enumerate(stages):
        had = [stage.exact[task.digest].value for task in found.tasks if since[task.digest] <= at]
        averages += [_point(_("average of the tasks learnt"), stage.version, sum(had) / len(had))] if had else []
    order = [stage.version for stage in stages]
    domain = [called[task.digest] for task in shown]
    dashes: Spec = {"domain": domain, "range": list(_DASHES[: len(domain)])}
    legend = {"symbolType": "stroke", "symbolStrokeColor": INK, "columns": 1 if narrow else 3, "labelLimit": 260}
    x = {"field": "version", "type": "ordinal", "sort": order,
         "axis": {"title": _("Version"), "labelAngle": 0, "labelOverlap": True}}  # fmt: skip
    y = {"field": "right", "type": "quantitative", "title": _("right, in percent"), "scale": {"domain": [0, 100]},
         "axis": {"tickCount": 5}}  # fmt: skip
    common = {"x": x, "y": y, "tooltip": {"field": "figures", "type": "nominal"}}
    dash = {"field": "task", "type": "nominal", "scale": dashes, "legend": legend}
    point = {"size": 40, "filled": True}
    line = {"type": "line", "color": SAME, "strokeWidth": 1.75}
    return {
        "description": course_words(found),
        "width": "container",
        "height": _HEIGHT,
        "layer": [
            {"data": {"values": rows}, "mark": line, "encoding": {**common, "strokeDash": dash}},
            {"data": {"values": rows}, "mark": {"type": "point", "color": SAME, **point}, "encoding": common},
            {"data": {"values": averages},
             "mark": {"type": "line", "color": ACCENT, "strokeWidth": 3, "point": {**point, "color": ACCENT}},
             "encoding": common},
        ],
        "config": look(),
    }  # fmt: skip


def _point(task: str, version: str, value: float) -> Spec:
    said = f"{listed((task, version))}: {figures.percentage(value, 1)}"
    return {"task": task, "version": version, "right": round(100 * value, 2), "figures": said}


def losses(found: TaskMeasures) -> list[Curve]:
    """The loss on the rows that were trained on, and on those held out, where they were logged."""
    return [curve for key, name in _LOSSES.items() if (curve := _logged(found, key, _(name))).points]


def penalties(found: TaskMeasures) -> list[Curve]:
    """What each regularizer said, before its weight."""
    keys = sorted({key for entry in (found.training.log if found.training else ()) for key in entry})
    given = [(key, key.removeprefix(_PENALTY)) for key in keys if key.startswith(_PENALTY)]
    return [curve for key, name in given if (curve := _logged(found, key, name)).points]


def _logged(found: TaskMeasures, key: str, name: str) -> Curve:
    log = found.training.log if found.training else ()
    points = [(entry.get("step", place), entry[key]) for place, entry in enumerate(log, 1) if key in entry]
    return Curve(name, [point for point in points if all(map(math.isfinite, point))])


def curve_words(curves: Sequence[Curve], what: str) -> str:
    """Curves in words: where each begins and ends."""
    parts = [
        _("{curve}: {first} at first, {last} in the end").format(
            curve=one_line(visible(curve.name)),
            first=figures.number(curve.points[0][1]),
            last=figures.number(curve.points[-1][1]),
        )
        for curve in curves
    ]
    return _("{what} by training step. {each}.").format(what=capital(what), each=joined(parts))


def _pointed(name: str, step: float, value: float) -> str:
    said = _("{curve}, step {step}: {value}")
    return said.format(curve=name, step=f"{step:g}", value=figures.number(value))


def curve_chart(curves: Sequence[Curve], what: str, *, small: bool = False) -> Spec:
    """A line for each curve against the step; the first is the page's accent."""
    called = [one_line(visible(curve.name)) for curve in curves]
    rows = [
        {"curve": name, "step": step, "value": value, "figures": _pointed(name, step, value)}
        for name, curve in zip(called, curves, strict=True)
        for step, value in curve.points
    ]
    legend = {"symbolType": "stroke"} if len(curves) > 1 else None
    colour = {"domain": called, "range": [ACCENT, MUTED][: len(called)]}
    few = all(len(curve.points) <= _DOTS for curve in curves)
    return {
        "description": curve_words(curves, what),
        "width": "container",
        "height": _SMALL if small else _HEIGHT,
        "data": {"values": rows},
        "mark": {"type": "line", "strokeWidth": 1.75, "point": few and {"size": 24, "filled": True}},
        "encoding": {
            "x": {
                "field": "step",
                "type": "quantitative",
                "title": _("training step"),
                "scale": {"nice": False},
                "axis": {"format": "d", "grid": False, "tickMinStep": 1},
            },
            "y": {"field": "value", "type": "quantitative", "title": None if small else what, "axis": {"tickCount": 5}},
            "color": {"field": "curve", "type": "nominal", "scale": colour, "legend": legend},
            "tooltip": {"field": "figures", "type": "nominal"},
        },
        "config": look(),
    }
