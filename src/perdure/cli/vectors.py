"""perdure vectors."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from perdure.cli.console import points, progress, say, say_json, table
from perdure.cli.options import AsJson, Device, Folder, opened

if TYPE_CHECKING:
    from perdure.measuring.shares import Share
    from perdure.measuring.skill_comparison import Bench, Side
    from perdure.measuring.skill_study import HeadEffect, StudiedFunction, StudyMeasures
    from perdure.measuring.skills import Skill, SkillMeasures
    from perdure.vectors import VectorConfig

_SHOWN_HEADS = 4
_KINDS: Mapping[str, str] = {
    "zero-shot": "without examples",
    "few-shot": "with examples",
    "shuffled": "with shuffled examples",
}
Functions = Annotated[
    list[str] | None,
    typer.Option(
        "--function",
        "-f",
        metavar="NAME_OR_FILE",
        help="A built-in function, or a .json, .jsonl or .csv of inputs and outputs; may be given several times.",
        show_default="all built-in ones",
    ),
]
Settings = Annotated[
    list[str] | None, typer.Option("--set", "-s", metavar="NAME=VALUE", help="A setting, such as shots=5.")
]

group = typer.Typer(
    no_args_is_help=True, help="Function vectors: the skills of a model, and what an update did to them."
)


def add_to(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.add_typer(group, name="vectors", rich_help_panel="Look")


@group.command("list")
def list_functions(json: AsJson = False) -> None:
    """List the built-in functions: skills that a model can be asked for by examples alone.

    Example: perdure vectors list
    """
    from perdure.measuring.suites import Suite

    known = dict(sorted(Suite.built_in().functions.items()))
    if json:
        say_json([{"name": name, "pairs": len(pairs)} for name, pairs in known.items()])
        return
    rows = [[name, str(len(pairs)), f"{pairs[0].input} → {pairs[0].output}"] for name, pairs in known.items()]
    table("Built-in functions", ["function", "pairs", "for example"], rows)


@group.command()
def compare(
    before: Annotated[str, typer.Argument(help="The model that had the skills: a version, or a model of its own.")],
    after: Annotated[str, typer.Argument(help="The model after the update, of the same architecture.")],
    functions: Functions = None,
    settings: Settings = None,
    workspace: Folder = Path(),
    device: Device = "cpu",
    json: AsJson = False,
) -> None:
    """Say what became of skills: kept, still there but out-shouted, or lost. Nothing is changed.

    What is computed is kept: a second call answers at once. Compared versions of a workspace stand in reports made
    afterwards. A model of its own is a folder or hub id with a slash, a .gguf file, or a name of `perdure models list`.

    Examples:

        perdure vectors compare v0 v1

        perdure vectors compare v0 v2 --function present_past --function plurals.csv

        perdure vectors compare ./base-model ./fine-tuned-model --set asked=200
    """
    from perdure.measuring.skill_comparison import compare_skills, functions_named

    config, asked = vector_settings(settings), functions_named(functions or [])
    versions = not (_is_checkpoint(before) or _is_checkpoint(after))
    if not versions:
        with sides_of([before, after], config, workspace=workspace, device=device, quiet=json) as (sides, bench):
            found = compare_skills(sides[0], sides[1], asked, bench)
    else:
        with opened(workspace, quiet=json, device=device) as shop:
            found = shop.compare_skills(before, after, asked, config)
    if json:
        say_json(found.model_dump(mode="json"))
        return
    _say_comparison(found)
    if versions:
        typed = dict(zip((each.name for each in asked), functions or [each.name for each in asked], strict=True))
        _say_next(found, before, after, typed)


@group.command()
def study(
    model: Annotated[str, typer.Argument(metavar="MODEL_OR_VERSION", help="A version, or a model of its own.")],
    functions: Functions = None,
    settings: Settings = None,
    workspace: Folder = Path(),
    device: Device = "cpu",
    json: AsJson = False,
) -> None:
    """Say which skills a model takes from examples, which heads carry them, and what their vectors do alone.

    A model of its own is a folder or hub id with a slash, a .gguf file, or a name of `perdure models list`.

    Examples:

        perdure vectors study v0 --function present_past

        perdure vectors study smollm2-135m
    """
    from perdure.measuring.skill_comparison import functions_named
    from perdure.measuring.skill_study import study_skills

    config, asked = vector_settings(settings), functions_named(functions or [])
    with sides_of([model], config, workspace=workspace, device=device, quiet=json) as (sides, bench):
        found = study_skills(sides[0], asked, bench)
    if json:
        say_json(found.model_dump(mode="json"))
        return
    _say_study(found)


def vector_settings(settings: list[str] | None) -> "VectorConfig":
    """The settings given on the command line, checked."""
    from perdure.cli.change import parse_settings
    from perdure.measuring.skill_comparison import vector_config

    return vector_config(parse_settings(settings or []))


def _is_checkpoint(source: str) -> bool:
    """Whether a model of its own is named, by a path, a hub id or the catalogue, and not a version."""
    from perdure.models.catalogue import CATALOGUE

    return "/" in source or source.endswith(".gguf") or source in CATALOGUE


@contextmanager
def sides_of(
    sources: Sequence[str], config: "VectorConfig", *, workspace: Path, device: str, quiet: bool
) -> "Iterator[tuple[list[Side], Bench]]":
    """The models, and where to keep what is found: in the workspace, or without versions in the user's cache."""
    from perdure.cli.start import quieten
    from perdure.content import cache_folder
    from perdure.measuring.skill_comparison import Bench, Side
    from perdure.workspace.skills import bench_of, side_of

    quieten()
    if all(map(_is_checkpoint, sources)):
        with progress(quiet=quiet) as advance:
            bench = Bench(config, cache_folder() / "vectors", advance)
            yield [Side.of_checkpoint(source, device) for source in sources], bench
        return
    with opened(workspace, quiet=quiet, device=device) as shop:

        def side(source: str) -> Side:
            if _is_checkpoint(source):
                return Side.of_checkpoint(source, device)
            return side_of(shop, shop.version(source))

        yield [side(source) for source in sources], bench_of(shop, config)


def _say_comparison(found: "SkillMeasures") -> None:
    from perdure.web.skills import SHORT, summary

    say(summary(found))
    told = [skill for skill in found.skills if skill.verdict != "untold"]
    columns = ["skill", "verdict", found.before, found.after, "+ old vector", "+ random", "n"]
    rows = [[skill.name, SHORT[skill.verdict][1], *_answers(skill)] for skill in told]
    table("Right answers after examples (95% intervals)", columns, rows)
    columns = [
        "skill",
        "vector moved",
        "order of heads",
        "heads kept",
        f"vector alone, {found.before}",
        found.after,
        "n",
    ]
    table("Where the skills sit", columns, [[skill.name, *_moves(skill, len(found.heads))] for skill in told])
    say("moved: 1 − cos of both vectors; order: Spearman's ρ of the heads' effects.", style="dim")
    for skill in found.skills:
        if skill.verdict == "untold":
            say(f"{skill.name}: {skill.reason}.", style="dim")


def _say_next(found: "SkillMeasures", before: str, after: str, typed: Mapping[str, str]) -> None:
    """What to do: bring back what can be brought back, and put the comparison into the report."""
    source = "" if before == "v0" else f" --from {before}"
    for skill in found.skills:
        if skill.verdict == "biased":
            say(f"Next: perdure vectors recover {after} {typed[skill.name]}{source}", style="dim")
    say(f"Next: perdure measure {after} puts this into its report.", style="dim")


def _answers(skill: "Skill") -> list[str]:
    asked = skill.asked["few-shot"]
    return [*map(_share, (asked.before, asked.after, asked.vector, asked.random)), str(asked.lost.n)]


def _moves(skill: "Skill", heads: int) -> list[str]:
    asked = skill.asked["zero-shot"]
    moved = [f"{skill.shift:.3f}", f"{skill.ranking:.2f}", f"{skill.kept_heads} of {heads}"]
    return [*moved, _share(asked.before_vector), _share(asked.vector), str(asked.lost.n)]


def _share(share: "Share") -> str:
    return f"{100 * share.value:.0f}% ({100 * share.low:.0f}–{100 * share.high:.0f})"


def _say_study(found: "StudyMeasures") -> None:
    told = [function for function in found.functions if not function.reason]
    if told:
        say(f"Heads that carry the skills of {found.model} (layer, head: mean effect in points of probability):")
        say(_heads(found.heads), style="bold")
        table(
            "Skills that the model takes from examples",
            ["function", "examples", "shuffled", "n", "strongest heads"],
            [
                [one.name, _share(one.clean), _share(one.shuffled), str(one.clean.n), _heads(one.heads[:_SHOWN_HEADS])]
                for one in told
            ],
        )
        columns = ["function", "asked", "plain", "+ vector", "+ random", "points", "n", "layer"]
        table("What the vectors do on held-out questions", columns, [row for one in told for row in _injections(one)])
    silent = [function for function in found.functions if function.reason]
    if silent:
        say("These tell nothing about the heads:")
    for one in silent:
        say(f"{one.name}: {one.reason}.", style="dim")


def _heads(heads: "Sequence[HeadEffect]") -> str:
    return "; ".join(f"{each.layer}, {each.head}: {points(each.effect)}" for each in heads)


def _injections(function: "StudiedFunction") -> list[list[str]]:
    return [
        [
            function.name,
            _KINDS.get(kind, kind),
            *map(_share, (asked.plain, asked.vector, asked.random)),
            f"{points(asked.gained.value)} ({points(asked.gained.low)} to {points(asked.gained.high)})",
            str(asked.gained.n),
            str(asked.layer),
        ]
        for kind, asked in function.asked.items()
    ]
