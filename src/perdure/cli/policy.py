"""perdure gate, policy check, policy show, policy history, policy set."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from perdure.cli.console import out, say, say_json, table
from perdure.cli.options import Actor, AsJson, Folder, opened

if TYPE_CHECKING:
    from perdure.governance import Policy, Use
    from perdure.measuring import Report

_EXIT = {"pass": 0, "fail": 1, "inconclusive": 2}
_MARK = {"pass": "[green]pass[/]", "fail": "[bold red]FAIL[/]", "inconclusive": "[yellow]inconclusive[/]"}

group = typer.Typer(no_args_is_help=True, help="The policy: what a candidate must hold to, and who must agree.")


def add_to(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command(rich_help_panel="Decide")(gate)
    for command in (check, show, history):
        group.command()(command)
    group.command("set")(put)
    app.add_typer(group, name="policy", rich_help_panel="Decide")


def gate(
    version: Annotated[str, typer.Argument(help="A measured version.")],
    workspace: Folder = Path(),
    json: AsJson = False,
) -> None:
    """Judge a version's latest report by the policy in force, gate by gate.

    Exit code 0: all gates pass. 1: one fails. 2: one is inconclusive and none fails.

    Example: perdure gate v3
    """
    from perdure.governance import uses

    with opened(workspace, quiet=True) as shop:
        found, policy = shop.gate(version), shop.policy
        report = shop.archive.report_digest(shop.version(version))
        spent = uses(found, policy.budget)
    if json:
        say_json(_as_json(found, policy, report, spent))
    else:
        for verdict in found.verdicts:
            out.print(f"{_MARK[verdict.verdict]} ", end="")
            say(f"{verdict.gate}: {verdict.reason}")
        out.print(f"Gates of {found.version}: {_MARK[found.verdict]}")
    raise typer.Exit(_EXIT[found.verdict])


def _as_json(found: "Report", policy: "Policy", report: str | None, spent: "list[Use]") -> dict[str, Any]:
    return {
        "version": found.version,
        "verdict": found.verdict,
        "gates": [verdict.model_dump() for verdict in found.verdicts],
        "budget": [{**vars(use), "share": use.share} for use in spent],
        "report": report,
        "policy": policy.digest,
    }


def check(
    file: Annotated[Path | None, typer.Argument(help="A policy file.", show_default="the policy in force")] = None,
    workspace: Folder = Path(),
    json: AsJson = False,
) -> None:
    """Say in plain words what a policy asks for; a file is checked before it is put in force.

    Example: perdure policy check
    """
    from perdure.governance import explain, read_policy

    hand_edited = False
    if file is None:
        with opened(workspace, quiet=True) as shop:
            policy = shop.policy
            hand_edited = shop.policy_file_differs()
    else:
        policy = read_policy(file)
    from perdure.governance.explaining import HOW

    parts = explain(policy)
    if json:
        say_json({"digest": policy.digest, "limits": policy.model_dump(mode="json"), "words": dict(parts)})
        return
    for title, sentences in parts:
        say(title, style="bold")
        for sentence in sentences:
            say(f"  {sentence}")
    say(HOW, style="dim")
    say(f"hash {policy.digest}", style="dim")
    if hand_edited:
        say("policy.toml was changed by hand and is not in force; an admin puts it in force: perdure policy set")


def show(
    digest: Annotated[str, typer.Argument(help="The start of a hash.", show_default="the policy in force")] = "",
    workspace: Folder = Path(),
    json: AsJson = False,
) -> None:
    """Print the text of a policy that is or was in force.

    Example: perdure policy show
    """
    with opened(workspace, quiet=True) as shop:
        text = shop.policy_text(digest)
    if json:
        say_json({"text": text})
    else:
        say(text)


def history(workspace: Folder = Path(), json: AsJson = False) -> None:
    """List every policy that came into force: when, by whom, its hash.

    Example: perdure policy history
    """
    with opened(workspace, quiet=True) as shop:
        changes = shop.policy_changes()
    if json:
        say_json([vars(change) for change in changes])
        return
    how = {"set": "set", "found": "found in a file changed by hand"}
    rows = [[change.time[:19].replace("T", " "), change.actor, how[change.origin], change.digest] for change in changes]
    table("Policies (UTC)", ["from", "who", "how", "hash"], rows)


def put(
    file: Annotated[Path, typer.Argument(help="A policy file (TOML).")],
    actor: Actor = "",
    workspace: Folder = Path(),
    json: AsJson = False,
) -> None:
    """Put a policy in force; approvals under the one before count no more.

    Example: perdure policy set stricter.toml --as sato
    """
    from perdure.workspace.deciding import read_text
    from perdure.workspace.opened import current_user

    who = actor or current_user()
    with opened(workspace, quiet=True) as shop:
        policy = shop.set_policy(read_text(file), actor=who)
    if json:
        say_json({"digest": policy.digest, "set_by": who})
    else:
        say(f"The policy in force is {policy.digest[:12]}…, set by {who}.")
