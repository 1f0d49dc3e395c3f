"""perdure methods."""

import typer

from perdure.cli.console import say_json, table
from perdure.cli.options import AsJson


def add_to(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command(rich_help_panel="Parts")(methods)


def methods(json: AsJson = False) -> None:
    """List every registered method with its settings and its source."""
    from perdure.registry import editors, measures, restraints

    found = [method for registry in (editors, restraints, measures) for method in registry]
    rows = [
        {
            "kind": method.kind,
            "name": method.name,
            "what": method.summary,
            "settings": [name for name in method.config.model_fields if name != "kind"],
            "paper": method.paper,
        }
        for method in found
    ]
    if json:
        say_json(rows)
        return
    table(
        "Registered methods",
        ["kind", "name", "what", "settings", "source"],
        [
            [str(row["kind"]), str(row["name"]), str(row["what"]), ", ".join(row["settings"]), str(row["paper"])]
            for row in rows
        ],
    )
