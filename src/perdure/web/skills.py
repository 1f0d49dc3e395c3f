"""What became of skills: in plain words, as rows of tables, and as a heat-map of heads (a Vega-Lite specification)."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from perdure.measuring.skills import Asked, Skill, SkillMeasures, Verdict
from perdure.web import figures
from perdure.web.cases import BAD, GOOD, NEUTRAL
from perdure.web.charts import ACCENT, INK, MUTED, Spec, look
from perdure.web.told import parts
from perdure.web.words import N_, _, counted, in_turn, listed

SHORT: Mapping[Verdict, tuple[str, str]] = {
    "kept": (GOOD, N_("kept")),
    "biased": (BAD, N_("still there, but out-shouted")),
    "overwritten": (BAD, N_("lost")),
    "unclear": (NEUTRAL, N_("unclear")),
    "untold": (NEUTRAL, N_("cannot be told")),
}
"""The tone of each verdict, and what it is called in tables."""
SKILL_LIMIT = 100
"""More skills than a person reads; the report's data holds all of them."""
_FARTHEST = 10.0  # a head that moved by more than ten times its length is drawn as having moved so far
_MAP_HEIGHT, _ROWS = 360, (4, 26)


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
    found = [_row(skill) for skill in skills.skills if skill.verdict != "untold" and "few-shot" in skill.asked]
    return sorted(found, key=lambda row: order.index(row.skill.verdict))


def _row(skill: Skill) -> SkillRow:
    tone, words = SHORT[skill.verdict]
    return SkillRow(skill, tone, _(words), skill.asked["few-shot"], skill.asked.get("zero-shot"))


def untold(skills: SkillMeasures) -> list[Skill]:
    """The skills of which nothing can be said, with their reasons."""
    return [skill for skill in skills.skills if skill.verdict == "untold"]


def summary(skills: SkillMeasures) -> str:
    """How many skills were kept, are out-shouted, are lost, or leave it open."""
    silent = skills.count("untold")
    total = len(skills.skills) - silent
    if not total:
        return _("Of no skill was it sure that the model before takes it from examples, so nothing can be said.")
    said = [
        counted("{count} is as good as before", "{count} are as good as before", skills.count("kept")),
        counted(
            "{count} is still there but out-shouted", "{count} are still there but out-shouted", skills.count("biased")
        ),
        counted("{count} is lost", "{count} are lost", skills.count("overwritten")),
    ]
    if skills.count("unclear"):
        unclear = figures.whole(skills.count("unclear"))
        said.append(_("for {count} too few questions were asked to say").format(count=unclear))
    first = counted(
        "Of {count} skill that the model before takes from examples: {each}.",
        "Of {count} skills that the model before takes from examples: {each}.",
        total,
        each=listed(said),
    )
    return in_turn(first, _of_the_rest(silent))


def _of_the_rest(silent: int) -> str:
    if not silent:
        return ""
    said = _("Of {count} more nothing can be said: examples did not surely help the model before.")
    return said.format(count=figures.whole(silent))


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
    said = _("How far each head moved: the darkest cell, layer {layer}, head {head}, is {moved}")
    return said.format(layer=layer, head=head, moved=_size(value))


def map_words(rows: Sequence[LayerRow]) -> str:
    """The heat-map in words."""
    chosen = [row.moved[head] for row in rows for head in row.chosen]
    everyone = [value for row in rows for value in row.moved]
    others = (sum(everyone) - sum(chosen)) / max(1, len(everyone) - len(chosen))
    layer, head, value = farthest(rows)
    return _(
        "How far the mean activation of each of {heads} moved, as a share of its own length, averaged over the skills. "
        "Those that carry the skills ({carrying}) moved by {moved} on average, the others by {others}; most of all "
        "head {head} of layer {layer}, by {most}."
    ).format(
        heads=counted("{count} head", "{count} heads", len(everyone)),
        carrying=counted("{count} head", "{count} heads", len(chosen)),
        moved=_size(sum(chosen) / max(1, len(chosen))),
        others=_size(others),
        head=head,
        layer=layer,
        most=_size(value),
    )


def _size(value: float) -> str:
    return figures.percentage(value, 0 if value >= 0.1 else 1)


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
    return {"data": {"values": values}, "transform": [{"calculate": _pointed(), "as": "figures"}]}


def _pointed() -> str:
    """What a cell says when it is pointed at, as an expression: a text for each cell would be most of the page."""
    given = {"layer": "datum.layer", "head": "datum.head", "moved": "format(datum.moved, '.1%')"}
    said = parts(_("layer {layer}, head {head}: moved by {moved}"))
    return " + ".join(piece for text, name in said for piece in (json.dumps(text), given.get(name)) if piece)


def _encoding() -> Spec:
    axis = {"labelOverlap": True, "labelAngle": 0, "grid": False, "domain": False, "ticks": False, "labelColor": MUTED}
    scale = {"paddingInner": 0, "paddingOuter": 0}
    return {
        "x": {
            "field": "layer",
            "type": "ordinal",
            "scale": scale,
            "axis": {**axis, "title": _("Layer, from the input (0) to the output")},
        },
        "y": {"field": "head", "type": "ordinal", "scale": scale, "axis": {**axis, "title": _("Head")}},
        "tooltip": {"field": "figures", "type": "nominal"},
    }
