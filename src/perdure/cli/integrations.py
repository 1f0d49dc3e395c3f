"""perdure mirror, push."""

from pathlib import Path
from typing import Annotated

import typer

from perdure.cli.console import say, say_json
from perdure.cli.options import Actor, AsJson, Folder, opened
from perdure.errors import WorkspaceError

_group = typer.Typer(help="Tell other systems of versions; the workspace stays the source of truth.")


def add_to(app: typer.Typer) -> None:
    """Add the commands of this file."""
    _group.command("mlflow")(mlflow)
    app.add_typer(_group, name="mirror", rich_help_panel="Keep", no_args_is_help=True)
    app.command(rich_help_panel="Keep")(push)


def mlflow(
    version: Annotated[str, typer.Argument(help="A measured version.")],
    uri: Annotated[str, typer.Option("--uri", envvar="MLFLOW_TRACKING_URI", help="MLflow's tracking server.")] = "",
    model: Annotated[str, typer.Option("--model", help="The registered model.", show_default="the base's name")] = "",
    workspace: Folder = Path(),
    actor: Actor = "",
    json: AsJson = False,
) -> None:
    """Mirror a version in MLflow: report as metrics, JSON and page; a model version; aliases as they stand here.

    Example: perdure mirror mlflow v1 --uri http://localhost:5000
    """
    from perdure.integrations.mlflow_mirror import mirror
    from perdure.web.report import render_report
    from perdure.workspace.opened import current_user

    with opened(workspace, quiet=True) as shop:
        chosen = shop.version(version)
        report = shop.report(chosen)
        if report is None:
            raise WorkspaceError(f"{chosen.name} has no report; run perdure measure {chosen.name} first")
        who = actor or current_user()
        found = mirror(shop, chosen, page=render_report(report), actor=who, uri=uri, model=model)
    if json:
        say_json({**vars(found), "version": chosen.name})
        return
    aliases = ", ".join(f"{alias} → {number}" for alias, number in found.aliases.items()) or "no alias"
    state = "is now" if found.new else "was already"
    say(f"{chosen.name} {state} version {found.number} of {found.model} in MLflow; {aliases}")


def push(
    version: Annotated[str, typer.Argument(help="A measured version.")],
    repo: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="The repository on the Hugging Face Hub.")],
    public: Annotated[
        bool, typer.Option("--public", help="Let everybody see it; needs a valid approval. Private otherwise.")
    ] = False,
    workspace: Folder = Path(),
    actor: Actor = "",
    json: AsJson = False,
) -> None:
    """Push a version to the Hugging Face Hub as one commit with its model card, tagged with version and id.

    The repository then holds exactly the version's files. Log in first: hf auth login.

    Example: perdure push v1 my-company/my-model
    """
    from perdure.integrations.hub import push as upload
    from perdure.workspace.opened import current_user

    with opened(workspace, quiet=json) as shop:
        chosen = shop.version(version)
        found = upload(shop, chosen, repo, actor=actor or current_user(), public=public)
    if json:
        say_json({**vars(found), "version": chosen.name})
        return
    say(f"{chosen.name} is at {found.repo}, tag {found.tag}, commit {found.commit[:12]}: {found.url}")
