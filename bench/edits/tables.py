"""Cells as tables of Markdown: one for each dataset and number of edits, the mean over seeds in each place."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from bench.edits.cells import Cell, latest
from bench.edits.comparison import ORIGINAL
from bench.edits.rows import FORMS, ROWS
from perdure.measuring.statistics import wilson

Place = tuple[str, int]
"""Dataset and number of edits."""


@dataclass(frozen=True)
class Line:
    """Cells of all seeds that stand in one line of a table.

    Attributes:
        row: The row's name.
        forms: The forms of restraint that gave these very weights.
        cells: One for each seed.
    """

    row: str
    forms: tuple[str, ...]
    cells: tuple[Cell, ...]

    @property
    def label(self) -> str:
        """The row in words."""
        labels = {row.name: row.label for row in ROWS} | {ORIGINAL: "the model without edits"}
        return labels.get(self.row, self.row)

    @property
    def restraint(self) -> str:
        """The forms in words."""
        return " = ".join(form.replace("_", " ") for form in self.forms) if self.row != ORIGINAL else ""


def places_of(cells: Iterable[Cell]) -> list[Place]:
    """Every dataset and number of edits, sorted."""
    return sorted({(cell.dataset, cell.key.edits) for cell in cells})


def lines_of(cells: Sequence[Cell], place: Place) -> list[Line]:
    """The lines of one table, in the order of the rows and forms."""
    here = [cell for cell in cells if (cell.dataset, cell.key.edits) == place]
    order = [ORIGINAL, *(row.name for row in ROWS)]
    names = sorted({cell.row for cell in here}, key=lambda name: order.index(name) if name in order else len(order))
    return [line for name in names for line in _lines_of_row(name, [cell for cell in here if cell.row == name])]


def _lines_of_row(name: str, cells: Sequence[Cell]) -> list[Line]:
    by_form = {form: tuple(cell for cell in cells if cell.key.form == form) for form in FORMS}
    twins = {form: _twin_in_every_seed(found) for form, found in by_form.items()}
    return [
        Line(name, (form, *(other for other, twin in twins.items() if twin == form)), found)
        for form, found in by_form.items()
        if found and twins[form] is None
    ]


def _twin_in_every_seed(cells: Sequence[Cell]) -> str | None:
    twins = {cell.same_as for cell in cells}
    return twins.pop() if len(twins) == 1 else None


def mean_share(line: Line, name: str) -> str:
    """Percent: mean over seeds ± their standard deviation, 95 % Wilson interval of all items together, and n."""
    shares = [cell.shares[name] for cell in line.cells if name in cell.shares]
    if not shares:
        return "–"
    pooled = wilson(sum(share.hits for share in shares), sum(share.n for share in shares))
    values = [100 * share.value for share in shares]
    return f"{_mean(values, '.0f')} ({100 * pooled.low:.0f}–{100 * pooled.high:.0f}), n {pooled.n}"


def _mean(values: Sequence[float], style: str) -> str:
    spread = f" ± {stdev(values):{style}}" if len(values) > 1 else ""
    return f"{fmean(values):{style}}{spread}"


def _retention(line: Line) -> str:
    found = [cell.retention for cell in line.cells if cell.retention]
    if not found:
        return "–"
    low, high = (100 * fmean(values) for values in zip(*((d.low, d.high) for d in found), strict=True))
    return f"{_mean([100 * d.value for d in found], '+.1f')} ({low:+.1f} to {high:+.1f}), n {found[0].n}"


def _perplexity(line: Line) -> str:
    found = [cell.perplexity for cell in line.cells if cell.perplexity]
    if not found:
        return "–"
    low, high = (fmean(values) for values in zip(*((r.low, r.high) for r in found), strict=True))
    return f"×{_mean([r.value for r in found], '.3f')} ({low:.3f}–{high:.3f})"


def _figure(path: str, style: str) -> Callable[[Line], str]:
    def tell(line: Line) -> str:
        values = [value for cell in line.cells if (value := cell.figure(path)) is not None]
        return _mean(values, style) if values else "–"

    return tell


def _share(name: str) -> Callable[[Line], str]:
    return lambda line: mean_share(line, name)


COLUMNS: dict[str, Callable[[Line], str]] = {
    "new answer likelier, all edits (probability)": _share("prompt.likelier"),
    "says it (generation)": _share("prompt.says"),
    "in other words, likelier (probability)": _share("paraphrase.likelier"),
    "in other words, says it (generation)": _share("paraphrase.says"),
    "nearby, right answer likelier (probability)": _share("neighbour.likelier"),
    "nearby, same next word as original": _share("neighbour.same_word"),
    "nearby, KL (nats)": _figure("divergence", ".3f"),
    "retention, points": _retention,
    "perplexity": _perplexity,
    "κ / κ of base": _figure("matrices.condition_ratio", ".2f"),
    "σmax(ΔW) / σ*": _figure("matrices.sigma_ratio", ".2f"),
    "CPU s per edit": _figure("seconds.cpu", ".2f"),
    "in the last batch": _figure("seconds.last_cpu", ".2f"),
}


def print_tables(cells: Sequence[Cell]) -> str:
    """Every table as Markdown."""
    cells = latest(cells)
    return "\n\n".join(_table(cells, place) + _ages(cells, place) for place in places_of(cells))


def _table(cells: Sequence[Cell], place: Place) -> str:
    dataset, edits = place
    lines = lines_of(cells, place)
    seeds = max(len(line.cells) for line in lines)
    title = f"### {dataset}, {edits} edit{'s' if edits > 1 else ''}, {seeds} seed{'s' if seeds > 1 else ''}"
    body = [_cells_of(line, [tell(line) for tell in COLUMNS.values()]) for line in lines]
    return "\n".join([title, "", *_head(["row", "restraint", *COLUMNS]), *body])


def _ages(cells: Sequence[Cell], place: Place) -> str:
    """Success by age: every edit asked again at the end, the first ones apart from the last ones."""
    lines = lines_of(cells, place)
    prefix = "prompt.likelier."
    names = {name for line in lines for cell in line.cells for name in cell.shares if name.startswith(prefix)}
    cohorts = sorted(names, key=lambda name: int(name.removeprefix(prefix).partition("-")[0]))
    if len(cohorts) < 2:
        return ""
    body = [_cells_of(line, [mean_share(line, name) for name in cohorts]) for line in lines]
    spans = [name.removeprefix(prefix).split("-") for name in cohorts]
    labels = [f"edit {first}" if first == last else f"edits {first}–{last}" for first, last in spans]
    title = "New answer likelier than the old one, by age of the edit (probability):"
    return "\n".join(["", "", title, "", *_head(["row", "restraint", *labels]), *body])


def _cells_of(line: Line, figures: Sequence[str]) -> str:
    failures = sum(cell.failure is not None for cell in line.cells)
    note = f" ({failures} of {len(line.cells)} seeds failed)" if failures else ""
    return f"| {line.label}{note} | {line.restraint} | {' | '.join(figures)} |"


def _head(names: Sequence[str]) -> list[str]:
    return [f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
