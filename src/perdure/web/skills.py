"""What became of skills: in plain words, as rows of tables, and as a heat-map of heads (a Vega-Lite specification)."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from perdure.measuring.skills import Asked, Skill, SkillMeasures, Verdict
from perdure.web import figures
from perdure.web.cases import BAD, GOOD, NEUTRAL
from perdure.web.charts import ACCENT, INK, MUTED, Spec, look

SHORT: Mapping[Verdict, tuple[str, str]] = {
    "kept": (GOOD, "kept"),
    "biased": (BAD, "still there, but out-shouted"),
    "overwritten": (BAD, "lost"),
    "unclear": (NEUTRAL, "unclear"),
    "untold": (NEUTRAL, "cannot be told"),
}
"""The tone of each verdict, and what it is called in tables."""
SKILL_LIMIT = 100
"""More skills than a person reads; the report's data holds all of them."""
_FARTHEST = 10.0  # a head that moved by more than ten times its length is drawn as having moved so far
_MAP_HEIGHT, _ROWS = 360, (4, 26)
_MOVED = "'layer ' + datum.layer + ', head ' + datum.head + ': moved by ' + format(datum.moved, '.1%')"


@dataclass(frozen=True)
class SkillRow:
    """One skill of which something can be said: its verdict in words and what was answered."""

    skill: Skill
    tone: str
    words: str
    few: Asked
    zero: Asked | None


@dataclass(frozen=True)
class LayerRow:
    """The heads of one layer: how far each moved on average over the skills, and which of them were chosen."""

    layer: int
    moved: Sequence[float]
    chosen: Sequence[int]

    @property
    def mean(self) -> float:
        """The mean over the layer's heads."""
        return sum(self.moved) / len(self.moved)

    @property
    def every(self) -> str:
        """All heads in their order, in percent."""
        return " ".join(f"{100 * value:.0f}" for value in self.moved)


def told(skills: SkillMeasures) -> list[SkillRow]:
    """The skills of which something can be said, the worst verdict first."""
    order = ("overwritten", "biased", "unclear", "kept")
    found = [
        SkillRow(skill, *SHORT[skill.verdict], skill.asked["few-shot"], skill.asked.get("zero-shot"))
        for skill in skills.skills
        if skill.verdict != "untold" and "few-shot" in skill.asked
    ]
    return sorted(found, key=lambda row: order.index(row.skill.verdict))


def untold(skills: SkillMeasures) -> list[Skill]:
    """The skills of which nothing can be said, with their reasons."""
    return [skill for skill in skills.skills if skill.verdict == "untold"]


def summary(skills: SkillMeasures) -> str:
    """How many skills were kept, are out-shouted, are lost, or leave it open."""
    silent = skills.count("untold")
    total = len(skills.skills) - silent
    parts = [
        (skills.count("kept"), "{} as good as before"),
        (skills.count("biased"), "{} still there but out-shouted"),
        (skills.count("overwritten"), "{} lost"),
    ]
    said = [text.format(f"{figures.whole(count)} {_are(count)}") for count, text in parts if count or total]
    if skills.count("unclear"):
        said.append(f"for {figures.whole(skills.count('unclear'))} too few questions were asked to say")
    first = f"Of {figures.counted(total, 'skill')} that the model before takes from examples: {', '.join(said)}."
    if not total:
        first = "Of no skill was it sure that the model before takes it from examples, so nothing can be said."
    return f"{first} {_of_the_rest(silent, total)}".rstrip()


def _are(count: int) -> str:
    return "is" if count == 1 else "are"


def _of_the_rest(silent: int, total: int) -> str:
    if not silent or not total:
        return ""
    return f"Of {figures.whole(silent)} more nothing can be said: examples did not surely help the model before."


def layer_rows(skills: SkillMeasures) -> list[LayerRow]:
    """How far each head moved on average over the skills that were told, layer by layer; empty where none was."""
    maps = [skill.activations for skill in skills.skills if skill.activations]
    rows = [
        [sum(map(_drawable, values)) / len(maps) for values in zip(*heads, strict=True)]
        for heads in zip(*maps, strict=True)
    ]
    return [
        LayerRow(layer, moved, sorted(head for at, head in skills.heads if at == layer))
        for layer, moved in enumerate(rows)
    ]


def _drawable(value: float) -> float:
    return min(value, _FARTHEST) if not math.isnan(value) else _FARTHEST


def farthest(rows: Sequence[LayerRow]) -> tuple[int, int, float]:
    """The layer and head that moved farthest, and how far; the first of equals."""
    values = [(value, row.layer, head) for row in rows for head, value in enumerate(row.moved)]
    value, layer, head = max(values, key=lambda found: found[0])
    return layer, head, value


def map_title(rows: Sequence[LayerRow]) -> str:
    """What the map shows, and how strong its darkest cell is."""
    layer, head, value = farthest(rows)
    return f"How far each head moved: the darkest cell, layer {layer}, head {head}, is {_size(value)}"


def map_words(rows: Sequence[LayerRow]) -> str:
    """The heat-map in words."""
    chosen = [row.moved[head] for row in rows for head in row.chosen]
    everyone = [value for row in rows for value in row.moved]
    others = (sum(everyone) - sum(chosen)) / max(1, len(everyone) - len(chosen))
    layer, head, value = farthest(rows)
    return (
        f"How far the mean activation of each of {figures.counted(len(everyone), 'head')} moved, as a share of its own "
        f"length, averaged over the skills. Those that carry the skills ({figures.counted(len(chosen), 'head')}) moved "
        f"by {_size(sum(chosen) / max(1, len(chosen)))} on average, the others by {_size(others)}; most of all head "
        f"{head} of layer {layer}, by {_size(value)}."
    )


def _size(value: float) -> str:
    return f"{100 * value:,.{0 if value >= 0.1 else 1}f}%"


def heads_chart(rows: Sequence[LayerRow]) -> Spec:
    """A cell for each layer and head, the darker the farther it moved, and the chosen heads framed."""
    heads, (least, most) = len(rows[0].moved), _ROWS
    return {
        "description": map_words(rows),
        "width": "container",
        "height": heads * max(least, min(most, _MAP_HEIGHT // heads)),
        "layer": [_cells(rows, farthest(rows)[2]), _frames(rows)],
        "view": {"fill": "var(--panel)", "stroke": None},
        "config": look(),
    }


def _cells(rows: Sequence[LayerRow], top: float) -> Spec:
    return {
        **_values(rows, [range(len(row.moved)) for row in rows]),
        "mark": {"type": "rect", "fill": ACCENT},
        "encoding": {
            **_encoding(),
            # Strength by opacity: a colour of the page has no shades that could be computed.
            "opacity": {
                "field": "moved",
                "type": "quantitative",
                "scale": {"domain": [0, top or 1.0], "range": [0, 1]},
                "legend": None,
            },
        },
    }


def _frames(rows: Sequence[LayerRow]) -> Spec:
    """A frame around each chosen head."""
    return {
        **_values(rows, [row.chosen for row in rows]),
        "mark": {"type": "rect", "fillOpacity": 0, "stroke": INK, "strokeWidth": 1.5},
        "encoding": _encoding(),
    }


def _values(rows: Sequence[LayerRow], heads: Sequence[Sequence[int]]) -> Spec:
    """Some heads of each layer as data, each with a text to point at."""
    values = [
        {"layer": row.layer, "head": head, "moved": round(row.moved[head], 4)}
        for row, chosen in zip(rows, heads, strict=True)
        for head in chosen
    ]
    return {"data": {"values": values}, "transform": [{"calculate": _MOVED, "as": "figures"}]}


def _encoding() -> Spec:
    axis = {"labelOverlap": True, "labelAngle": 0, "grid": False, "domain": False, "ticks": False, "labelColor": MUTED}
    scale = {"paddingInner": 0, "paddingOuter": 0}
    return {
        "x": {
            "field": "layer",
            "type": "ordinal",
            "scale": scale,
            "axis": {**axis, "title": "Layer, from the input (0) to the output"},
        },
        "y": {"field": "head", "type": "ordinal", "scale": scale, "axis": {**axis, "title": "Head"}},
        "tooltip": {"field": "figures", "type": "nominal"},
    }
