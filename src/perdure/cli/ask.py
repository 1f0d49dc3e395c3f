"""perdure ask."""

from pathlib import Path
from typing import Annotated

import typer

from perdure.cli.console import note, say, say_json, table
from perdure.cli.options import AsJson, Device, Folder, opened


def add_to(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command(rich_help_panel="Look")(ask)


def ask(
    prompt: Annotated[str, typer.Argument(help="A text to go on from, or a question with --chat.")],
    version: Annotated[
        list[str] | None, typer.Option("--version", "-v", help="A version to ask; give several to compare.")
    ] = None,
    chat: Annotated[bool, typer.Option("--chat/--plain", help="Ask through the model's chat template.")] = False,
    tokens: Annotated[int, typer.Option(min=1, max=4096, help="At most this many new tokens.")] = 24,
    workspace: Folder = Path(),
    device: Device = "cpu",
    json: AsJson = False,
) -> None:
    """Ask versions the same thing, side by side (greedy).

    A version with a pool sends the request to the group that it resembles, and says to which.

    Examples:

        perdure ask "The capital of Canada is" --version v0 --version v1

        perdure ask "Which law covers returns?" --chat -v production
    """
    from perdure.models import chat_prompt, complete

    answers, routes = [], {}
    with opened(workspace, quiet=True, device=device) as shop:
        chosen = [shop.version(ref) for ref in version or ["latest"]]
        for found in chosen:
            with shop.answering(found, prompt) as by:
                text = chat_prompt(by.tokenizer, prompt) if chat else prompt
                if chat and text == prompt:
                    note(f"{found.name} has no chat template and is asked without one", style="dim")
                answers.append((found.name, complete(by.model, by.tokenizer, [text], max_new_tokens=tokens)[0]))
            if by.route is not None:
                routes[found.name] = by.route
    if json:
        told = {"routes": {name: vars(route) for name, route in routes.items()}} if routes else {}
        say_json({"prompt": prompt, "answers": dict(answers), **told})
        return
    table(prompt, ["version", "answer"], [[name, answer.strip()] for name, answer in answers])
    for name, route in routes.items():
        say(f"{name}: {route.reason}", style="dim")
