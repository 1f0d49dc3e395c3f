"""perdure concepts."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from perdure.cli import concept_sets
from perdure.cli.console import note, percent, progress, say, say_json, table
from perdure.cli.options import Actor, AsJson, Device, Folder, opened
from perdure.cli.recognising import say_watched, short

if TYPE_CHECKING:
    from perdure.measuring.discovery import Discovered
    from perdure.measuring.watched import Discovery, Marks
    from perdure.models.encoders import Encoder
    from perdure.requests.concepts import Unlabelled
    from perdure.workspace import Workspace

Source = Annotated[
    str,
    typer.Option(
        "--encoder", "-e", help="A catalogue name, folder or hub id; without it, a version of the workspace is read."
    ),
]
Settings = Annotated[
    list[str] | None, typer.Option("--set", "-s", metavar="NAME=VALUE", help="A setting, such as least=50.")
]

group = typer.Typer(
    no_args_is_help=True, help="Concepts found without labels: what your data is about, and whether an update keeps it."
)


def add_to(app: typer.Typer) -> None:
    """Add the commands of this file, and those of labelled sets."""
    concept_sets.add_to(group)
    app.add_typer(group, name="concepts", rich_help_panel="Look")


@group.command("find")
def find(
    data: Annotated[Path, typer.Argument(help="Images or texts without labels: a folder, NPZ, JSONL, CSV or TXT.")],
    encoder: Source = "",
    version: Annotated[str, typer.Option("--version", "-v", help="The version that is read.")] = "v0",
    traffic: Annotated[
        Path | None, typer.Option(help="What users send, with a count where it is known; ranks the concepts.")
    ] = None,
    words: Annotated[
        Path | None, typer.Option(help="Names to choose from, one a line.", exists=True, dir_okay=False)
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Also where concepts are protected already.")] = False,
    settings: Settings = None,
    workspace: Folder = Path(),
    actor: Actor = "",
    device: Device = "cpu",
    json: AsJson = False,
) -> None:
    """Find concepts in unlabelled data: groups of items that a model sees as alike. They are watched from then on.

    Their number is the largest at which two halves of the data agree. They are kept under concepts/ in the workspace,
    or, with --encoder, in this folder. Nothing is trained.

    Examples:

        perdure concepts find questions.csv --encoder minilm

        perdure concepts find photos/ --encoder openai/clip-vit-base-patch32 --words names.txt

        perdure concepts find questions.csv --version v0 --traffic last_month.csv --set least=50
    """
    from perdure.cli.change import parse_settings
    from perdure.measuring.discovery import DiscoverySettings
    from perdure.measuring.watched import Marks
    from perdure.measuring.watched_files import FOLDER, read_marks, write_marks
    from perdure.requests.concepts import read_unlabelled
    from perdure.settings import checked
    from perdure.workspace.probe_sets import place_of

    folder = workspace / FOLDER
    before = read_marks(folder)
    chosen = checked(DiscoverySettings, parse_settings(settings or []), "finding concepts")
    read = read_unlabelled(data, skip_bad=True)
    asked = None if traffic is None else read_unlabelled(traffic, skip_bad=True)
    with _reading(encoder, version, workspace, device, quiet=json) as (model, shop, advance):
        found = _found(model, (read, asked), chosen, _lines(words), folder, advance, (place_of(data), encoder))
        marks = Marks(key=found.card.key, weights=before.weights if before and before.key == found.card.key else {})
        _check_replaced(before, marks, replace=replace)
        _note(shop, before, marks, actor)
    write_marks(folder, marks)
    for line in (*read.notes, *(asked.notes if asked else ())):
        note(line, style="dim")
    _tell(found.card, marks, json=json)


@group.command("list")
def list_concepts(workspace: Folder = Path(), json: AsJson = False) -> None:
    """List the concepts that are watched: their names, share of the traffic and protection.

    Example: perdure concepts list
    """
    from perdure.measuring.watched_files import FOLDER, in_force

    _tell(*in_force(workspace / FOLDER), json=json)


@group.command("protect")
def protect(
    name: Annotated[str, typer.Argument(help="A concept's name, a part of it, or its id, such as c3.")],
    weight: Annotated[float, typer.Option(min=0, help="How much its items count where features are held.")] = 3.0,
    withdraw: Annotated[bool, typer.Option("--withdraw", help="Protect it no longer.")] = False,
    workspace: Folder = Path(),
    actor: Actor = "",
    json: AsJson = False,
) -> None:
    """Protect a concept: its items weigh more where features are held, and a gate limits what it may lose.

    Examples:

        perdure concepts protect c1

        perdure concepts protect "lost card" --weight 5

        perdure concepts protect c1 --withdraw
    """
    from perdure.measuring.watched_files import FOLDER, in_force, named, write_marks

    folder = workspace / FOLDER
    card, before = in_force(folder)
    concept = named(card, name)
    others = {key: value for key, value in before.weights.items() if key != concept.id}
    marks = before.model_copy(update={"weights": others if withdraw else {**others, concept.id: weight}})
    if _is_workspace(workspace):
        with opened(workspace, quiet=True) as shop:
            _note(shop, before, marks, actor)
    write_marks(folder, marks)
    if json:
        say_json({"concept": concept.id, "name": concept.name, "weights": marks.weights})
        return
    said = "is no longer protected" if withdraw else f"is protected; its items count {weight:g} times"
    say(f"{concept.id}, {concept.name}, {said}.")


@group.command("check")
def check(
    after: Annotated[str, typer.Argument(metavar="AFTER", help="The updated encoder: a folder or hub id.")],
    encoder: Annotated[
        str, typer.Option("--encoder", "-e", help="The encoder before.", show_default="the one they were found with")
    ] = "",
    workspace: Folder = Path(),
    device: Device = "cpu",
    json: AsJson = False,
) -> None:
    """Say which watched concepts an updated encoder still recognises. Versions of a workspace: perdure measure.

    Example: perdure concepts check tuned/
    """
    from perdure.errors import SettingError
    from perdure.measuring.watched_files import FOLDER, in_force, load_found
    from perdure.measuring.watching import build_watched, watch_encoder
    from perdure.models.encoders import load_encoder
    from perdure.workspace.watched import data_of, features_folder

    card, marks = in_force(workspace / FOLDER)
    first = encoder or card.model
    if not first:
        raise SettingError("these concepts were found with a version of a workspace; perdure measure looks at them")
    found = load_found(workspace / FOLDER, marks.key)
    data, seen = data_of(found), []
    with _quiet_progress(quiet=json) as advance:
        for source in (first, after):
            model = load_encoder(source, device=device)
            seen.append(watch_encoder(model, found, data, folder=features_folder(workspace), progress=advance))
    measures = build_watched(found.card, *seen, marks=marks)
    if json:
        say_json(measures.model_dump(mode="json"))
        return
    say_watched(measures)


def _found(
    model: "Encoder",
    data: "tuple[Unlabelled, Unlabelled | None]",
    settings: Any,
    words: list[str] | None,
    folder: Path,
    advance: Any,
    origin: tuple[str, str],
) -> "Discovered":
    """The concepts: those in the folder, if the same were looked for before, with where the data lies now."""
    from perdure.measuring.discovery import find_concepts, key_of
    from perdure.measuring.watched_files import is_kept, load_found, save_found
    from perdure.workspace.watched import features_folder

    read, traffic = data
    key = key_of(model, read, settings, words, traffic)
    if is_kept(folder, key):
        kept = load_found(folder, key)
        card = kept.card.model_copy(update={"source": read.name, "path": origin[0], "model": origin[1]})
        if card != kept.card:
            kept = replace(kept, card=card)
            save_found(kept, folder)
        return kept
    found = find_concepts(
        model, read, settings, origin=origin, words=words, traffic=traffic,
        folder=features_folder(folder.parent), progress=advance,
    )  # fmt: skip
    save_found(found, folder)
    return found


@contextmanager
def _reading(
    source: str, version: str, workspace: Path, device: str, *, quiet: bool
) -> "Iterator[tuple[Encoder, Workspace | None, Any]]":
    """The encoder that is read, the workspace it is of, and who is told how far it is."""
    if source:
        from perdure.models.encoders import load_encoder

        with _quiet_progress(quiet=quiet) as advance:
            yield load_encoder(source, device=device), None, advance
        return
    from perdure.workspace.watched import encoder_of

    with opened(workspace, quiet=quiet, device=device) as shop:
        yield encoder_of(shop, shop.version(version)), shop, shop.progress


@contextmanager
def _quiet_progress(*, quiet: bool) -> Iterator[Any]:
    from perdure.cli.start import quieten

    quieten()
    with progress(quiet=quiet) as advance:
        yield advance


def _note(shop: "Workspace | None", before: "Marks | None", after: "Marks", actor: str) -> None:
    if shop is None or before == after:
        return
    from perdure.workspace.opened import current_user
    from perdure.workspace.watched import note_marks

    note_marks(shop, before, after, actor or current_user())


def _check_replaced(before: "Marks | None", after: "Marks", *, replace: bool) -> None:
    """Raises: SettingError."""
    if before is not None and before.key != after.key and before.weights and not replace:
        from perdure.errors import SettingError

        raise SettingError(
            f"{len(before.weights)} of the concepts in force are protected, and these are others; look at them with "
            "perdure concepts list, and give --replace to watch the new ones instead"
        )


def _is_workspace(folder: Path) -> bool:
    from perdure.workspace.database import FILE_NAME

    return (folder / FILE_NAME).is_file()


def _lines(file: Path | None) -> list[str] | None:
    from perdure.cli.change import read_text

    return None if file is None else [line.strip() for line in read_text(file)]


def _tell(card: "Discovery", marks: "Marks", *, json: bool) -> None:
    if json:
        found = card.model_dump(mode="json")
        for concept in found["concepts"]:
            concept.pop("pictures")
            concept["weight"] = marks.weights.get(concept["id"])
        say_json(found)
        return
    rows = [
        [
            given.id,
            short(given.name),
            percent(given.share),
            str(given.items),
            f"{marks.weights[given.id]:g} times" if given.id in marks.weights else "",
        ]
        for given in card.concepts
    ]
    table(f"Concepts of {card.source}", ["id", "concept", "traffic", "items", "protected"], rows)
    chosen = next(each for each in card.tried if each.clusters == card.clusters)
    whose = f" of {card.counted}" if card.counted else ""
    say(
        f"{len(rows)} concepts; two halves of the data agree on {card.clusters} clusters by {chosen.stability:.2f} "
        f"(1 is all). In none of them: {percent(card.unknown)} of the traffic{whose}."
    )
