"""The tables, one for each encoder and target: accuracy on what was learnt, Δ_LP on all else; and the picture."""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from bench.encoders.methods import METHODS, Row, rows_named
from bench.encoders.running import BY_NAME

Result = Mapping[str, Any]
_NORMAL = 1.959964


def in_order(results: Iterable[Result]) -> list[Result]:
    """Results as the tables list them: methods in their order, then strengths."""
    known = list(METHODS)

    def place(result: Result) -> tuple[Any, ...]:
        row = _row(result)
        return (result["encoder"], result["target"], known.index(row.method), row.strength or 0.0, result["seed"])

    return sorted(results, key=place)


def table(results: Sequence[Result]) -> str:
    """All tables; shares in percent, differences in points, 95 % intervals over items, seeds averaged.

    CPU seconds before the first step (a probe for the head, features of the reference) and of a step, against naive's.
    """
    parts = []
    for encoder, target in dict.fromkeys((each["encoder"], each["target"]) for each in in_order(results)):
        runs = [each for each in in_order(results) if (each["encoder"], each["target"]) == (encoder, target)]
        others = ", ".join(name for name in runs[0]["sets"] if name != target and not name.endswith(BY_NAME))
        lines = [
            f"### {encoder}, tuned on {target}, probed on {others}\n",
            "| row | seeds | accuracy | ± seeds | Δ_LP of the others | ± seeds | of naive's | before, CPU-s | step |",
            "|---|---|---|---|---|---|---|---|---|",
        ]
        naive = [each for each in runs if each["row"] == "naive"]
        loss = delta_of(naive)[0] if naive else None
        step = mean(each["cpu"]["training"] for each in naive) if naive else None
        lines += [_line(name, [each for each in runs if each["row"] == name], loss, step) for name in _names(runs)]
        parts += ["\n".join(lines), *_by_name(runs, target)]
    return "\n\n".join(parts)


def _by_name(runs: Sequence[Result], target: str) -> list[str]:
    """The tables of what two towers recognise by the names of classes."""
    sets = [name.removesuffix(BY_NAME) for name in runs[0]["sets"] if name.endswith(BY_NAME)]
    return [_by_name_of_set(runs, each) for each in sets if each != target]


def _by_name_of_set(runs: Sequence[Result], each: str) -> str:
    before = mean(runs[0]["sets"][f"{each}{BY_NAME}"]["before"])
    lines = [f"By the names of classes, {each}: {before:.1%} before\n", "| row | Δ_ZS |", "|---|---|"]
    for name in _names(runs):
        own = [run for run in runs if run["row"] == name]
        lines.append(f"| {name} | {_told(by_name_of(own, each), sign=True)} |")
    return "\n".join(lines)


def _line(name: str, runs: Sequence[Result], naive: float | None, step: float | None) -> str:
    accuracy, delta = accuracy_of(runs), delta_of(runs)
    part = f"{delta[0] / naive:.0%}" if naive is not None and naive < 0 else "–"
    cells = [
        name,
        str(len(runs)),
        _told(accuracy),
        _spread([accuracy_of([run])[0] for run in runs]),
        _told(delta, sign=True),
        _spread([delta_of([run])[0] for run in runs]),
        part,
        f"{mean(run['cpu']['preparing'] for run in runs):.0f}",
        f"×{mean(run['cpu']['training'] for run in runs) / step:.2f}" if step else "–",
    ]
    return f"| {' | '.join(cells)} |"


def accuracy_of(runs: Sequence[Result]) -> tuple[float, float, float]:
    """Accuracy on the target's test items with its interval."""
    value, variance = _mean_over_items([run["hits"] for run in runs])
    return _interval(value, variance)


def delta_of(runs: Sequence[Result]) -> tuple[float, float, float]:
    """Mean Δ_LP over the sets not tuned on, with its interval: items are drawn, sets are taken as they are."""
    names = [name for name in runs[0]["sets"] if name != runs[0]["target"] and not name.endswith(BY_NAME)]
    parts = [_changed(runs, name) for name in names]
    return _interval(mean(value for value, _ in parts), sum(variance for _, variance in parts) / len(parts) ** 2)


def by_name_of(runs: Sequence[Result], name: str) -> tuple[float, float, float]:
    """The change of zero-shot accuracy on one set (Δ_ZS), with its interval."""
    return _interval(*_changed(runs, f"{name}{BY_NAME}"))


def _changed(runs: Sequence[Result], name: str) -> tuple[float, float]:
    return _mean_over_items([[after - before for before, after in zip(*_pair(run, name), strict=True)] for run in runs])


def _pair(run: Result, name: str) -> tuple[Sequence[int], Sequence[int]]:
    return run["sets"][name]["before"], run["sets"][name]["after"]


def _mean_over_items(runs: Sequence[Sequence[float]]) -> tuple[float, float]:
    """The mean over items of their means over seeds, and its variance."""
    items = [mean(each) for each in zip(*runs, strict=True)]
    value = mean(items)
    return value, sum((each - value) ** 2 for each in items) / max(1, len(items) - 1) / len(items)


def _interval(value: float, variance: float) -> tuple[float, float, float]:
    reach = _NORMAL * math.sqrt(variance)
    return value, value - reach, value + reach


def _told(figure: tuple[float, float, float], *, sign: bool = False) -> str:
    value, low, high = (f"{100 * each:{'+' if sign else ''}.1f}" for each in figure)
    return f"{value} ({low} to {high})"


def _spread(values: Sequence[float]) -> str:
    return f"{100 * stdev(values):.1f}" if len(values) > 1 else "–"


def _row(result: Result) -> Row:
    return rows_named(result["row"])[0]


def _names(runs: Iterable[Result]) -> list[str]:
    return list(dict.fromkeys(run["row"] for run in runs))


def picture(results: Sequence[Result], path: Path) -> None:
    """Accuracy against Δ_LP, one panel for each encoder and target, strengths of a method joined."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    found = in_order(results)
    panels = list(dict.fromkeys((each["encoder"], each["target"]) for each in found))
    rows = math.ceil(len(panels) / 3)
    columns = math.ceil(len(panels) / rows)
    size = (4.6 * columns, 3.8 * rows)
    figure, grid = pyplot.subplots(rows, columns, figsize=size, squeeze=False)
    colours = dict(zip(METHODS, pyplot.get_cmap("tab10").colors, strict=False))
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    for axes, panel in zip(grid.flat, panels, strict=False):
        runs = [each for each in found if (each["encoder"], each["target"]) == panel]
        for method in dict.fromkeys(_row(each).method for each in runs):
            points = []
            for name in _names(each for each in runs if _row(each).method == method):
                own = [each for each in runs if each["row"] == name]
                points.append((100 * delta_of(own)[0], 100 * accuracy_of(own)[0], name.partition(":")[2]))
            axes.plot(
                *zip(*[each[:2] for each in points], strict=True), "o-", ms=4, lw=1, label=method, color=colours[method]
            )
            for x, y, strength in points:
                axes.annotate(strength, (x, y), xytext=(3, 3), textcoords="offset points", fontsize=6)
        axes.axvline(0, color="#999999", lw=0.6)
        axes.set_title(f"{panel[0]}, tuned on {panel[1]}", fontsize=9)
        axes.set_xlabel("Δ_LP of the other sets, points", fontsize=8)
        axes.set_ylabel("accuracy, %", fontsize=8)
        axes.grid(alpha=0.3)
    shown = {name: line for axes in grid.flat for line, name in zip(*axes.get_legend_handles_labels(), strict=True)}
    known = [name for name in METHODS if name in shown]
    figure.legend(
        [shown[name] for name in known], known, loc="lower center", ncols=len(known), fontsize=8, frameon=False
    )
    figure.tight_layout(rect=(0, 0.3 / size[1], 1, 1))
    figure.savefig(path, dpi=120, metadata={"Software": None})
    pyplot.close(figure)
