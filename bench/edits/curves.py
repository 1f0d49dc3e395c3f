"""Cells as pictures: each figure against the number of edits, one line for each row of the table."""

from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from bench.edits.cells import Cell, latest
from bench.edits.rows import FORMS, ROWS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Pick = Callable[[Cell], float | None]


def _share(name: str) -> Pick:
    return lambda cell: 100 * cell.shares[name].value if name in cell.shares else None


def _figure(path: str) -> Pick:
    return lambda cell: cell.figure(path)


def _points(cell: Cell) -> float | None:
    return None if cell.retention is None else 100 * cell.retention.value


PANELS: dict[str, Pick] = {
    "new answer likelier, all edits (%)": _share("prompt.likelier"),
    "says it, free generation (%)": _share("prompt.says"),
    "in other words, likelier (%)": _share("paraphrase.likelier"),
    "nearby, same next word as original (%)": _share("neighbour.same_word"),
    "retention against original (points)": _points,
    "perplexity / perplexity of original": _figure("perplexity.value"),
    "largest κ / κ of base": _figure("matrices.condition_ratio"),
    "largest σmax(ΔW) / σ*": _figure("matrices.sigma_ratio"),
    "CPU seconds per edit, last batch": _figure("seconds.last_cpu"),
}
_LOGARITHMIC = ("perplexity", "largest", "CPU")  # how the titles of panels with a logarithmic axis begin
_MARKERS = "osD^v<>Pph*"
_COLORS = (*(f"C{number}" for number in range(10)), "black")


def draw_curves(cells: Sequence[Cell], folder: Path) -> list[Path]:
    """One SVG picture for each dataset and form of restraint; the same cells give the same bytes.

    Lines are means over seeds, the band around one reaches from the lowest to the highest seed.
    """
    cells, pictures = latest(cells), []
    for dataset in sorted({cell.dataset for cell in cells}):
        for form in FORMS:
            chosen = [cell for cell in cells if (cell.dataset, cell.key.form) == (dataset, form)]
            lines = {row.name: found for row in ROWS if (found := [cell for cell in chosen if cell.row == row.name])}
            if lines:
                path = folder / f"editing-{dataset}-{form.replace('_', '-')}.svg"
                _draw(lines, f"{dataset}, restraint: {form.replace('_', ' ')}", path)
                pictures.append(path)
    return pictures


def _draw(lines: dict[str, list[Cell]], title: str, path: Path) -> None:
    import matplotlib as mpl
    from matplotlib.figure import Figure

    labels = {row.name: row.label for row in ROWS}
    with mpl.rc_context({"svg.hashsalt": "perdure", "svg.fonttype": "none", "font.size": 9}):
        figure = Figure(figsize=(11, 9.5), layout="constrained")
        grid = figure.subplots(3, 3).flat
        for axes, (panel, pick) in zip(grid, PANELS.items(), strict=True):
            for name, cells in lines.items():
                _draw_line(axes, name, labels[name], cells, pick)
            _finish(axes, panel)
        figure.suptitle(title)
        figure.legend(*grid[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, metadata={"Date": None})


def _draw_line(axes: "Axes", name: str, label: str, cells: Sequence[Cell], pick: Pick) -> None:
    index = [row.name for row in ROWS].index(name)  # a row keeps its colour from picture to picture
    by_edits: dict[int, list[float]] = {}
    for cell in sorted(cells, key=lambda cell: cell.key.edits):
        if (value := pick(cell)) is not None:
            by_edits.setdefault(cell.key.edits, []).append(value)
    edits, values = list(by_edits), list(by_edits.values())
    color, marker = _COLORS[index % len(_COLORS)], _MARKERS[index % len(_MARKERS)]
    axes.plot(edits, [fmean(found) for found in values], marker + "-", color=color, label=label, ms=4)
    axes.fill_between(edits, [min(v) for v in values], [max(v) for v in values], color=color, alpha=0.12, lw=0)


def _finish(axes: "Axes", panel: str) -> None:
    axes.set_xscale("log")
    if panel.startswith(_LOGARITHMIC):
        axes.set_yscale("log")
    axes.set_title(panel, fontsize=9)
    axes.set_xlabel("edits")
    axes.grid(alpha=0.3)
