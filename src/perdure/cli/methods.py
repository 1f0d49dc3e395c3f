"""perdure methods."""

from collections.abc import Mapping
from typing import Any

import typer

from perdure.cli.console import say_json, table
from perdure.cli.options import AsJson


def add_to(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command(rich_help_panel="Parts")(methods)


def methods(json: AsJson = False) -> None:
    """List every registered method with its settings and its source, and published settings by model.

    Example: perdure methods
    """
    from perdure.editing.presets import PRESETS, presets_of
    from perdure.registry import editors, measures, regularizers, restraints

    found = [method for registry in (editors, restraints, regularizers, measures) for method in registry]
    rows = [
        {
            "kind": method.kind,
            "name": method.name,
            "what": method.summary,
            "settings": [name for name in method.config.model_fields if name != "kind"],
            "paper": method.paper,
            "presets": {
                preset.name: dict(preset.published[method.name].settings)
                for preset in (presets_of(method.name) if method.kind == "editor" else ())
            },
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
    table(
        "Published settings, for --preset",
        ["preset", "editor", "settings", "source"],
        [
            [preset.name, editor, _in_words(published.settings), published.source]
            for preset in PRESETS.values()
            for editor, published in preset.published.items()
        ],
    )


def _in_words(settings: Mapping[str, Any], group: str = "") -> str:
    """Settings as they would be typed."""
    return " ".join(
        _in_words(value, f"{name}.") if isinstance(value, Mapping) else f"{group}{name}={value}".replace(" ", "")
        for name, value in settings.items()
    )
