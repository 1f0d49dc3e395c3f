"""perdure vectors export, import, trust, key."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from perdure.cli.console import percent, say, say_json, table
from perdure.cli.options import Actor, AsJson, Device, Folder, opened
from perdure.cli.vectors import group

if TYPE_CHECKING:
    from perdure.vectors.sharing import SharedVector


def add_to(_app: typer.Typer) -> None:
    """Add the commands of this file, to `perdure vectors`."""
    group.command("export")(export_file)
    group.command("import")(import_file)
    group.command("trust")(trust)
    group.command("key")(key)


def export_file(
    version: Annotated[str, typer.Argument(help="The model that the vector is taken from.")],
    function: Annotated[str, typer.Argument(help="A built-in function, or a file of inputs and outputs.")],
    file: Annotated[Path, typer.Argument(help="A new file, NAME.vector.safetensors.")],
    settings: Annotated[
        list[str] | None, typer.Option("--set", "-s", metavar="NAME=VALUE", help="A setting, such as heads=20.")
    ] = None,
    actor: Annotated[
        str, typer.Option("--as", envvar="PERDURE_USER", help="Who exports it; if given, told in the file.")
    ] = "",
    workspace: Folder = Path(),
    device: Device = "cpu",
    json: AsJson = False,
) -> None:
    """Write a function's vector as a small signed file, without any of its examples.

    The file says which model and heads the vector is from and what it did on held-out questions. The workspace's
    signing key is made by the first export and never leaves it.

    Examples:

        perdure vectors export v0 present_past past.vector.safetensors

        perdure vectors export v0 plurals.jsonl plurals.vector.safetensors --as sato
    """
    from perdure.cli.change import parse_settings
    from perdure.measuring.skill_comparison import functions_named, vector_config
    from perdure.workspace.opened import current_user
    from perdure.workspace.sharing import export_vector

    config = vector_config(parse_settings(settings or []))
    [asked] = functions_named([function])
    with opened(workspace, quiet=json, device=device) as shop:
        shared = export_vector(
            shop, shop.version(version), asked, file, config, actor=actor or current_user(), signer=actor or None
        )
    if json:
        say_json({**_facts(shared), "file": str(file)})
        return
    _say_vector(shared)
    say(f"It is in {file}, {len(shared.data):,} bytes, signed with {shared.fingerprint}.")


def import_file(
    file: Annotated[Path, typer.Argument(help="A file written by perdure vectors export.", exists=True)],
    other_weights: Annotated[
        bool, typer.Option("--other-weights", help="Take a vector of another model of the same architecture.")
    ] = False,
    actor: Actor = "",
    workspace: Folder = Path(),
    json: AsJson = False,
) -> None:
    """Take in a vector's file: whole, signed by somebody trusted, and of a model in this workspace.

    Pickles, damaged or changed files, unknown signers and vectors of other models are refused.

    Example: perdure vectors import past.vector.safetensors
    """
    from perdure.workspace.opened import current_user
    from perdure.workspace.sharing import import_vector

    with opened(workspace, quiet=True) as shop:
        found = import_vector(shop, file, actor=actor or current_user(), other_weights=other_weights)
    if json:
        say_json({**_facts(found.shared), "versions": found.versions})
        return
    _say_vector(found.shared)
    whose = ", ".join(found.versions) or "a model with other weights than any version here"
    say(f"Imported as {found.shared.digest[:12]}; it is of {whose}. Signed with {found.shared.fingerprint}.")


def trust(
    fingerprint: Annotated[str, typer.Argument(help="The whole fingerprint of the signer's key, 64 digits.")],
    withdraw: Annotated[bool, typer.Option("--withdraw", help="Trust this signer no longer.")] = False,
    actor: Actor = "",
    workspace: Folder = Path(),
    json: AsJson = False,
) -> None:
    """Let vectors of a signer come in. Compare the fingerprint with the signer's by another way than the file's.

    Example: perdure vectors trust 7d1f0c6a9b3e54827d1f0c6a9b3e54827d1f0c6a9b3e54827d1f0c6a9b3e5482
    """
    from perdure.signing import short
    from perdure.workspace.opened import current_user
    from perdure.workspace.signers import trust as decide
    from perdure.workspace.signers import trusted_signers

    with opened(workspace, quiet=True) as shop:
        found = decide(shop, fingerprint, actor=actor or current_user(), withdraw=withdraw)
        trusted = sorted(trusted_signers(shop))
    if json:
        say_json({"fingerprint": found, "trusted": trusted})
        return
    say(f"{short(found)} is {'no longer trusted' if withdraw else 'trusted'}. Trusted signers: {len(trusted)}.")


def key(workspace: Folder = Path(), json: AsJson = False) -> None:
    """Show the fingerprint of the key that signs this workspace's exports. The key itself is never shown.

    Give it to those who import your vectors, by another way than the file's.

    Example: perdure vectors key
    """
    from perdure.signing import short
    from perdure.workspace.signers import own_fingerprint

    with opened(workspace, quiet=True) as shop:
        found = own_fingerprint(shop)
    if json:
        say_json({"fingerprint": found, "short": short(found)})
        return
    say(f"{short(found)}    in full: {found}")


def _facts(shared: "SharedVector") -> dict[str, object]:
    header = shared.header.model_dump(mode="json", exclude={"key", "signature"})
    return {**header, "vector": shared.digest, "fingerprint": shared.fingerprint}


def _say_vector(shared: "SharedVector") -> None:
    header = shared.header
    heads = ", ".join(f"{layer}.{head}" for layer, head in header.heads)
    rows = [
        [kind, *(percent(right / one.n) for right in (one.plain, one.vector, one.random)), str(one.n)]
        for kind, one in header.figures.items()
        if one.n
    ]
    say(f"{header.name}: heads (layer.head) {heads}; works best after block {header.layer}; norm {header.norm:.2f}")
    table("Held-out questions answered rightly", ["asked", "plain", "with the vector", "with a random one", "n"], rows)
