"""perdure init."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from perdure.cli.console import progress, say, say_json
from perdure.cli.options import Actor, AsJson


def add_to(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command(rich_help_panel="Change")(init)


def init(
    folder: Annotated[Path, typer.Argument(help="The workspace to create.")],
    model: Annotated[
        str,
        typer.Option(
            "--model", "-m", help="A catalogue name, a folder (of a model or an adapter), a .gguf file or a hub id."
        ),
    ],
    actor: Actor = "",
    json: AsJson = False,
) -> None:
    """Create a workspace; the model becomes version v0.

    Examples:

        perdure init shop --model smollm2-135m

        perdure init shop --model HuggingFaceTB/SmolLM2-135M-Instruct

        perdure init shop --model ./my-model-folder

        perdure init photos --model openai/clip-vit-base-patch32   (an encoder)

        perdure init shop --model ./my-lora-adapter   (merged into the base that it names)
    """
    from perdure.cli.start import quieten
    from perdure.workspace import Workspace

    quieten()
    with progress(quiet=json) as advance:
        workspace = Workspace.init(folder, model, actor=actor, progress=advance)
    base = workspace.version("v0")
    if json:
        say_json({"workspace": str(folder), "version": base.name, "id": base.id, "bytes": base.manifest.nbytes})
        return
    say(f"{folder}: v0 is {model}, {base.manifest.nbytes / 1e6:,.0f} MB in {len(base.manifest.tensors)} tensors.")
    learn = "tune SET.npz" if workspace.is_encoder else "edit FACTS.jsonl"
    there = "" if folder.resolve() == Path.cwd() else f"cd {shlex.quote(str(folder))} and "
    say(f"Next: {there}perdure {learn}", style="dim")
