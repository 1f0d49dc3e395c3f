"""perdure log, verify, export, apply, clean."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from perdure.cli.console import counted, progress, say, say_json, table
from perdure.cli.options import Actor, AsJson, Folder, opened
from perdure.errors import IntegrityError, SettingError, WorkspaceError

if TYPE_CHECKING:
    from perdure.evidence import PackCheck

_SHOWN = 80  # characters of a detail of the ledger, such as the text of a policy; --json has all


def add_to(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command(rich_help_panel="Look")(log)
    app.command(rich_help_panel="Keep")(verify)
    app.command(rich_help_panel="Keep")(export)
    app.command(rich_help_panel="Keep")(apply)
    app.command(rich_help_panel="Keep")(clean)


def log(
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many of the latest entries.")] = 50,
    workspace: Folder = Path(),
    json: AsJson = False,
) -> None:
    """Show the ledger: who did what when. It can only grow, and each entry seals the ones before.

    Example: perdure log --limit 10
    """
    with opened(workspace, quiet=True) as shop:
        entries = shop.archive.log(limit)
    if json:
        say_json([vars(entry) for entry in entries])
        return
    rows = [
        [str(entry.sequence), entry.time[:19].replace("T", " "), entry.actor, entry.action, _brief(entry.details)]
        for entry in entries
    ]
    table("Ledger (UTC)", ["no.", "time", "who", "what", "details"], rows)


def _brief(details: object) -> str:
    if not isinstance(details, dict):
        return ""
    return ", ".join(f"{name}: {_short(value)}" for name, value in details.items())


def _short(value: object) -> str:
    text = " ".join(str(value).split())
    if len(text) == 64 and set(text) <= set("0123456789abcdef"):
        return f"{text[:12]}…"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def verify(
    quick: Annotated[bool, typer.Option("--quick", help="Check the ledger and that everything is there.")] = False,
    evidence: Annotated[
        Path | None, typer.Option("--evidence", help="Check an evidence pack instead: a folder or a zip file.")
    ] = None,
    key: Annotated[
        str, typer.Option("--key", help="Whose signature the pack must have: a fingerprint or a public PEM file.")
    ] = "",
    head: Annotated[str, typer.Option("--head", help="The hash of a ledger row noted earlier, elsewhere.")] = "",
    workspace: Folder = Path(),
    json: AsJson = False,
) -> None:
    """Check everything: the ledger's chain, every object's hash, every version rebuilt, every pool's adapters.

    Exit code 7 on damage.

    With --evidence, check a pack that perdure export --evidence wrote: hashes, signature, chain, approvals; and that
    it is about the workspace, where there is one.

    Examples:

        perdure verify

        perdure verify --evidence v1.evidence.zip
    """
    if evidence is not None:
        _verify_evidence(evidence, key, head, workspace, json)
        return
    if key:
        raise SettingError("--key goes with --evidence")
    with opened(workspace, quiet=True) as shop:
        found = shop.archive.verify(deep=not quick, head=head or None)
        if found.ok and not quick:
            shop.archive.note_verified()
    if json:
        say_json({**vars(found), "ok": found.ok})
    else:
        for problem in found.problems:
            say(problem, style="red")
        counts = ", ".join(
            f"{value:,} {name.replace('_', ' ')}" for name, value in vars(found).items() if type(value) is int
        )
        say(f"{'sound' if found.ok else 'DAMAGED'}: {counts}")
    if not found.ok:
        raise IntegrityError(f"{counted(len(found.problems), 'problem')}; restore the workspace from a backup")


def _verify_evidence(path: Path, key: str, head: str, workspace: Path, json: bool) -> None:
    from perdure.evidence import check_pack
    from perdure.workspace.database import FILE_NAME

    if workspace == Path() and not (workspace / FILE_NAME).is_file():
        found = check_pack(path, key=key, head=head)
    else:
        with opened(workspace, quiet=True) as shop:
            found = check_pack(path, key=key, head=head, shop=shop)
    if json:
        about = found.about.model_dump(mode="json")
        say_json({**vars(found), "about": about, "ok": found.ok})
    else:
        _say_check(found)
    if not found.ok:
        raise IntegrityError(f"{path}: {counted(len(found.problems), 'problem')}; do not rely on it")


def _say_check(found: "PackCheck") -> None:
    about = found.about
    for problem in found.problems:
        say(problem, style="red")
    by = ", ".join(about.approved_by) or "nobody"
    state = "sound" if found.ok else "NOT SOUND"
    say(f"{state}: {about.name} ({about.version[:12]}…), approved by {by}; exported {about.exported[:19]} UTC")
    say(f"signed with {about.signer}{', which is known' if found.signer_known else ''}")
    for note in found.notes:
        say(f"note: {note}", style="yellow")


def export(
    version: Annotated[str, typer.Argument(help="A version.")],
    target: Annotated[Path | None, typer.Argument(help="A new folder; with --delta a new file.")] = None,
    delta: Annotated[bool, typer.Option("--delta", help="Only what the version changed, as one file.")] = False,
    evidence: Annotated[
        bool, typer.Option("--evidence", help="The evidence for an auditor, signed; no weights.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The target; of evidence a folder or a .zip file.")
    ] = None,
    actor: Actor = "",
    workspace: Folder = Path(),
    json: AsJson = False,
) -> None:
    """Write a version as a model folder: AutoModelForCausalLM.from_pretrained loads it.

    With --delta, write only what turns the base into the version; perdure apply puts it on a copy of the base.

    With --evidence, write what an auditor needs to judge it: model card, bill of materials, report, policy, approvals,
    ledger, all signed. perdure verify --evidence checks it. The workspace's signing key is made if there is none.

    Examples:

        perdure export v1 out/

        perdure export v1 v1.safetensors --delta

        perdure export --evidence v1 --out v1.evidence.zip
    """
    target = target or out
    if delta and evidence:
        raise SettingError("--delta and --evidence write different things; give one of them")
    if evidence:
        _export_evidence(version, target, actor, workspace, json)
        return
    if target is None:
        raise SettingError("name the new folder, or with --delta the new file, after the version")
    with opened(workspace, quiet=True) as shop:
        name = shop.version(version).name
        if delta:
            shop.export_delta(name, target)
        else:
            shop.export(name, target)
    size = target.stat().st_size if delta else None
    if json:
        say_json({"version": name, "delta" if delta else "folder": str(target), "bytes": size})
    elif delta:
        say(f"what {name} changed is in {target}, {target.stat().st_size / 1e6:,.1f} MB")
    else:
        say(f"{name} is in {target}")


def _export_evidence(version: str, target: Path | None, actor: str, workspace: Path, json: bool) -> None:
    from perdure.evidence import export_pack
    from perdure.web.report import render_report
    from perdure.workspace.opened import current_user

    with opened(workspace, quiet=True) as shop:
        chosen = shop.version(version)
        report = shop.report(chosen)
        if report is None:
            raise WorkspaceError(f"{chosen.name} has no report; run perdure measure {chosen.name} first")
        path = target or Path(f"{chosen.name}.evidence.zip")
        found = export_pack(shop, chosen, path, page=render_report(report), actor=actor or current_user())
    if json:
        say_json({**vars(found), "about": found.about.model_dump(mode="json")})
        return
    say(f"the evidence of {chosen.name} is in {path}: {found.files} files, {found.bytes / 1e6:,.1f} MB")
    say(f"signed with {found.about.signer}; approved by {', '.join(found.about.approved_by) or 'nobody'}")
    for place in found.paths:
        say(f"names a place on some machine, in a document that is hashed as it is: {place}", style="yellow")


def apply(
    delta: Annotated[Path, typer.Argument(help="A file written by perdure export VERSION FILE --delta.")],
    to: Annotated[str, typer.Option("--to", help="The base: a folder, a catalogue name, a .gguf file or a hub id.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The new model folder.")],
    json: AsJson = False,
) -> None:
    """Put an exported delta on a copy of the base, wherever it lies; no workspace is needed.

    Works through the checkpoint a few rows at a time, so it may be far larger than memory. Every tensor of
    the base is checked by its hash, and every changed one after; the new folder is there whole or not at all.

    Example: perdure apply v1.safetensors --to ./base-model --out ./edited-model
    """
    from perdure.deltas.exported import ExportedDelta
    from perdure.deltas.streaming import apply_to_folder
    from perdure.models.loading import resolve

    exported = ExportedDelta.open(delta)
    with progress(quiet=json) as advance:
        done = apply_to_folder(resolve(to), exported, out, progress=advance)
    name = exported.contents.notes.get("name", "")
    if json:
        say_json({"version": exported.contents.notes.get("version"), "folder": str(out), **vars(done)})
    else:
        say(f"{out} is {name}: {done.changed} of {done.tensors} tensors changed, all checked against their hashes")


def clean(workspace: Folder = Path(), json: AsJson = False) -> None:
    """Move objects that nothing refers to into quarantine.

    Example: perdure clean
    """
    with opened(workspace, quiet=True) as shop:
        found = shop.archive.collect_garbage()
    if json:
        say_json(vars(found))
    else:
        say(", ".join(f"{name}: {value}" for name, value in vars(found).items()))
