"""The table of a stream, one line per method with intervals; the picture of accuracy against forgetting."""

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

Result = Mapping[str, Any]
_DRAWS = 2000


def table(results: Sequence[Result]) -> str:
    """All methods over all orders and seeds that are finished; shares in percent, 95 % intervals over items."""
    lines = [
        "| method | runs | Avg | New | Forgetting | zero-shot against base | in context against base | CPU-s a task |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name in dict.fromkeys(result["row"] for result in results):
        lines.append(_line(name, [result for result in results if result["row"] == name]))
    return "\n".join(lines)


def _line(name: str, runs: Sequence[Result]) -> str:
    figures = [
        interval(runs, lambda run, drawn: average(_scores(run, drawn))),
        interval(runs, lambda run, drawn: new(_scores(run, drawn))),
        interval(runs, lambda run, drawn: forgetting(_scores(run, drawn))),
        interval(runs, lambda run, drawn: _general(run, "zero-shot", drawn)),
        interval(runs, lambda run, drawn: _general(run, "in context", drawn)),
    ]
    cpu = mean(stage["cpu"] for run in runs for stage in run["stages"])
    shown = [f"{100 * value:.1f} ({100 * low:.1f} to {100 * high:.1f})" for value, low, high in figures]
    if all(len(run["stages"]) == 1 for run in runs):  # all at once: nothing is new, and nothing can be forgotten
        shown[1] = shown[2] = "–"
    return f"| {name} | {len(runs)} | {' | '.join(shown)} | {cpu:.0f} |"


def interval(runs: Sequence[Result], figure: Callable[[Result, "Drawn"], float]) -> tuple[float, float, float]:
    """A figure's mean over runs, and its 95 % interval over items, drawn with replacement, the same in all cells."""
    plain = mean(figure(run, lambda hits, _name: mean(hits)) for run in runs)
    found = []
    for draw in range(_DRAWS):
        places: dict[tuple[str, int], list[int]] = {}

        def drawn(hits: Sequence[float], name: str, draw: int = draw, places: dict = places) -> float:  # type: ignore[type-arg]
            key = (name, len(hits))
            if key not in places:
                chosen = random.Random(f"{draw} {name} {len(hits)}")
                places[key] = [chosen.randrange(len(hits)) for _ in hits]
            return sum(hits[place] for place in places[key]) / len(hits)

        found.append(mean(figure(run, drawn) for run in runs))
    found.sort()
    return plain, found[round(0.025 * _DRAWS)], found[round(0.975 * _DRAWS) - 1]


Drawn = Callable[[Sequence[float], str], float]


def _scores(run: Result, drawn: Drawn) -> list[list[float]]:
    """R[j][i], the share of exact answers to task i after task j."""
    return [[drawn(cell["exact"], name) for name, cell in stage["cells"].items()] for stage in run["stages"]]


def average(scores: Sequence[Sequence[float]]) -> float:
    """Mean over tasks of the score after the last one."""
    return mean(scores[-1])


def new(scores: Sequence[Sequence[float]]) -> float:
    """Mean over tasks of the score right after each was learnt."""
    return mean(row[-1] for row in scores)


def forgetting(scores: Sequence[Sequence[float]]) -> float:
    """Mean over all tasks but the last of the best score minus the last one; 0 where there is one stage only."""
    last = len(scores) - 1
    if last == 0:
        return 0.0
    return mean(max(row[task] for row in scores[task:]) - scores[-1][task] for task in range(last))


def _general(run: Result, kind: str, drawn: Drawn) -> float:
    after, before = run["stages"][-1]["general"][kind], run["base"][kind]
    return drawn([float(a) - float(b) for a, b in zip(after, before, strict=True)], kind)


def picture(results: Iterable[Result], path: Path) -> None:
    """Accuracy on the new task against forgetting, a point for each method."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 5))
    found, placed = list(results), []
    for name in dict.fromkeys(result["row"] for result in found):
        runs = [result for result in found if result["row"] == name and len(result["stages"]) > 1]
        if not runs:
            continue
        plain: Drawn = lambda hits, _name: mean(hits)  # noqa: E731
        x = 100 * mean(forgetting(_scores(run, plain)) for run in runs)
        y = 100 * mean(new(_scores(run, plain)) for run in runs)
        axes.scatter(x, y, s=50 if name == "usual" else 25, color="#b8442c" if name == "usual" else "#44617b")
        crowded = any(abs(x - other) < 2.5 and abs(y - high) < 3 for other, high in placed)
        placed.append((x, y))
        where = {"rotation": -30, "va": "top"} if crowded else {"rotation": 30, "va": "bottom"}
        axes.annotate(name, (x, y), xytext=(3, -3 if crowded else 3), textcoords="offset points", fontsize=8, **where)
    axes.set_xlabel("forgetting, points (left is better)")
    axes.set_ylabel("right answers to the task just learnt, %")
    axes.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(path, dpi=120, metadata={"Software": None})
    pyplot.close(figure)
