"""perdure vectors."""

import typer

from perdure.cli.console import say_json, table
from perdure.cli.options import AsJson

group = typer.Typer(
    no_args_is_help=True, help="Function vectors: the skills of a model, and what an update did to them."
)


def add_to(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.add_typer(group, name="vectors", rich_help_panel="Look")


@group.command("list")
def list_functions(json: AsJson = False) -> None:
    """List the built-in functions: skills that a model can be asked for by examples alone."""
    from perdure.measuring.suites import Suite

    known = dict(sorted(Suite.built_in().functions.items()))
    if json:
        say_json([{"name": name, "pairs": len(pairs)} for name, pairs in known.items()])
        return
    rows = [[name, str(len(pairs)), f"{pairs[0].input} → {pairs[0].output}"] for name, pairs in known.items()]
    table("Built-in functions", ["function", "pairs", "for example"], rows)
