"""Vectors that leave a workspace and come into it: signed, taken from trusted signers only, told in the ledger."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from perdure.content import write_atomic
from perdure.errors import IntegrityError, UnknownNameError
from perdure.measuring.skill_comparison import traits_of
from perdure.models import Layout
from perdure.requests.functions import Function
from perdure.vectors import Traits, VectorConfig, judge, universal_heads, vector_of
from perdure.vectors.headers import InContext, Origin, figures_of, origin_of
from perdure.vectors.sharing import (
    SUFFIX,
    SharedVector,
    check_model,
    check_new,
    check_signer,
    describe,
    read_vector,
    write_vector,
)
from perdure.workspace.ledger import checked_actor
from perdure.workspace.signers import own_key, trusted_signers
from perdure.workspace.skills import bench_of, side_of

if TYPE_CHECKING:
    from pathlib import Path

    from perdure.workspace.records import Version
    from perdure.workspace.workspace import Workspace

_JUDGED = ("zero-shot", "shuffled")
_BEST = "zero-shot"


@dataclass(frozen=True)
class Imported:
    """A vector that came in.

    Attributes:
        shared: The vector.
        versions: Names of the versions that it belongs to; none where it was taken for other weights.
    """

    shared: SharedVector
    versions: tuple[str, ...]


def origins_of(shop: "Workspace", versions: "Sequence[Version]") -> dict[str, Origin]:
    """From the name of each version to the origin of its vectors; no weight is read."""
    found, layouts = {}, dict[str, Layout]()
    for version in versions:
        manifest, config = version.manifest, shop.archive.side_files(version)["config.json"]
        if (same := manifest.files["config.json"]) not in layouts:
            layouts[same] = shop.layout(version)
        hashes = {name: record.hash for name, record in manifest.tensors.items()}
        found[version.name] = origin_of(layouts[same], hashes, json.loads(config))
    return found


def export_vector(
    shop: "Workspace",
    version: "Version",
    function: Function,
    path: "Path",
    config: VectorConfig | None = None,
    *,
    actor: str,
    signer: str | None = None,
) -> SharedVector:
    """Write the vector of a function, from its own strongest heads, signed with the workspace's key.

    The key is made by the first export. The same export again gives the same bytes.

    Args:
        shop: The workspace.
        version: The model that the vector is taken from.
        function: The function; its pairs do not go into the file.
        path: A new file.
        config: How the vector is made and judged.
        actor: Who exports it, for the ledger.
        signer: A name that goes into the file.

    Raises:
        RequestError: The model cannot do the function in context, so there is no vector.
        SettingError: The file is there, or has another ending.
    """
    check_new(path)  # before the long work
    actor, chosen = checked_actor(actor), config or VectorConfig()
    traits = traits_of(side_of(shop, version), function, bench_of(shop, chosen))
    heads = universal_heads([traits], chosen.heads)
    model, tokenizer = shop.load(version)
    vector_D = vector_of(model, traits, heads)
    judged = judge(model, tokenizer, function, vector_D, chosen, shop.progress, kinds=_JUDGED)
    shared = describe(
        vector_D,
        name=function.name,
        digest=function.digest,
        model=origins_of(shop, [version])[version.name],
        heads=tuple(heads),
        layer=judged[_BEST].layer,
        settings=chosen.model_dump(mode="json"),
        in_context=_in_context(traits),
        figures=figures_of(judged),
        signer=signer,
    ).signed(own_key(shop, actor))
    write_vector(path, shared)
    shop.archive.record("export vector", {"version": version.id, **_told(shared)}, actor=actor)
    return shared


def import_vector(
    shop: "Workspace", path: "Path", *, actor: str, allow_unsigned: bool = False, other_weights: bool = False
) -> Imported:
    """Take in a vector's file: whole, signed by a trusted signer, of a version of this workspace.

    It is kept among the workspace's vectors under its hash; nothing in it becomes a name of a file.

    Args:
        shop: The workspace.
        path: The file.
        actor: Who imports it.
        allow_unsigned: Take a file that nobody signed.
        other_weights: Take a vector of another model of the same architecture.

    Raises:
        UnsafeFileError: A pickle, something that is no plain file, or a file that is far too large.
        IntegrityError: Damaged, changed, not finite, or something else.
        RefusedError: Not signed, or signed by somebody who is not trusted.
        ModelError: Of another model.
    """
    actor, shared = checked_actor(actor), read_vector(path)
    check_signer(shared, trusted_signers(shop), allow_unsigned=allow_unsigned)
    origins = origins_of(shop, shop.archive.versions())
    check_model(shared, list(origins.values()), other_weights=other_weights)
    write_atomic(_folder(shop) / f"{shared.digest}{SUFFIX}", shared.data)
    versions = tuple(name for name, origin in origins.items() if origin == shared.header.model)
    told = {**_told(shared), "versions": list(versions), "other_weights": not versions}
    shop.archive.record("import vector", told, actor=actor)
    return Imported(shared, versions)


def shared_vectors(shop: "Workspace") -> list[SharedVector]:
    """The vectors that were imported, by name and hash.

    Raises:
        IntegrityError: One was changed since.
    """
    found = [_kept(path) for path in _folder(shop).glob(f"*{SUFFIX}")]
    return sorted(found, key=lambda shared: (shared.header.name, shared.digest))


def shared_vector(shop: "Workspace", ref: str) -> SharedVector:
    """The imported vector that `ref` names: its function, or the first six or more digits of its hash.

    Raises:
        UnknownNameError: None or several are called so.
    """
    known = shared_vectors(shop)
    found = [
        shared
        for shared in known
        if shared.header.name == ref or (len(ref) >= 6 and shared.digest.startswith(ref.lower()))
    ]
    if len(found) != 1:
        raise UnknownNameError("imported vector", ref, (f"{each.header.name} ({each.digest[:12]})" for each in known))
    return found[0]


def _folder(shop: "Workspace") -> "Path":
    return shop.folder / "vectors" / "shared"


def _kept(path: "Path") -> SharedVector:
    shared = read_vector(path)
    if path.name != f"{shared.digest}{SUFFIX}":
        raise IntegrityError(f"{path} has another hash than its name tells; it was changed. Import the vector again")
    return shared


def _in_context(traits: Traits) -> InContext:
    clean, shuffled = traits.evidence.clean, traits.evidence.shuffled
    return InContext(n=len(clean), clean=sum(clean), shuffled=sum(shuffled))


def _told(shared: SharedVector) -> dict[str, Any]:
    """What the ledger says about a vector."""
    return {"function": shared.header.name, "vector": shared.digest, "signer": shared.fingerprint}
