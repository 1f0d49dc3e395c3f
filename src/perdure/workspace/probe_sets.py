"""The labelled sets of a workspace: probed in every report of an encoder, read from where they lie."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from perdure.content import canonical_json, write_atomic
from perdure.errors import IntegrityError, RequestError

if TYPE_CHECKING:
    from perdure.requests.concepts import Probe
    from perdure.workspace.workspace import Workspace

FOLDER = "concepts"
_FILE = "sets.json"


class ProbeSet(BaseModel):
    """Where a labelled set lies, and how it is told from another one in the same place."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(description="what reports call it")
    path: str = Field(description="a folder or file, or the hub id of a data set")
    test_path: str = Field("", description="where its test part lies, when that is a place of its own")
    digest: str = Field(pattern=r"^[0-9a-f]{64}$", description="hash of its items and labels")
    side: str = Field(description="image or text")
    test_share: float = Field(description="share of each class that becomes test where the source has none")
    seed: int = Field(description="seed of that share")


class _Sets(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    sets: tuple[ProbeSet, ...] = ()


def probe_sets(shop: "Workspace") -> tuple[ProbeSet, ...]:
    """The sets that every report probes.

    Raises:
        IntegrityError: Their list is damaged.
    """
    path = shop.folder / FOLDER / _FILE
    try:
        return _Sets.model_validate_json(path.read_bytes()).sets if path.is_file() else ()
    except (OSError, ValidationError) as error:
        raise IntegrityError(f"{path} is no list of labelled sets: {error}") from error


def add_set(shop: "Workspace", entry: ProbeSet, *, actor: str) -> bool:
    """Have a set probed from now on; whether it was not before. The same content elsewhere takes the other's place.

    Raises:
        RequestError: Another set has its name, or it holds what the model does not read.
    """
    known = probe_sets(shop)
    if entry in known:
        return False
    _check_side(shop, entry)
    shop.archive.check_permitted("comment", actor)
    others = [each for each in known if each.digest != entry.digest]
    if any(each.name == entry.name for each in others):
        raise RequestError(
            f"another labelled set is called {entry.name!r}: give this one another name (--name), or drop that one "
            f"first, which takes the right to change the policy: perdure concepts drop {entry.name}"
        )
    _write(shop, [*others, entry])
    shop.archive.record("probe set added", entry.model_dump(mode="json", exclude={"path"}), actor=actor)
    return True


def named_apart(shop: "Workspace", probes: "Sequence[Probe]", paths: Sequence[str]) -> "list[Probe]":
    """Labelled sets under names of their own: one whose name another has gets the folder that it lies in before it.

    Args:
        shop: The workspace, whose sets keep their names.
        probes: The sets.
        paths: Where each lies.
    """
    taken = {each.name: each.digest for each in probe_sets(shop)}
    found = []
    for probe, path in zip(probes, paths, strict=True):
        folders, name = list(Path(path).absolute().parts[1:-1]), probe.name
        while folders and taken.get(name, probe.digest) != probe.digest:
            name = f"{folders.pop()}/{name}"
        taken[name] = probe.digest
        found.append(replace(probe, name=name))
    return found


def drop_set(shop: "Workspace", name: str, *, actor: str) -> ProbeSet:
    """Have a set probed no longer; what it took is the same as for a laxer policy.

    Raises:
        RequestError: There is no such set.
    """
    known = probe_sets(shop)
    found = next((each for each in known if each.name == name), None)
    if found is None:
        names = ", ".join(each.name for each in known) or "none"
        raise RequestError(f"no labelled set is called {name!r}. There are: {names}")
    shop.archive.check_permitted("policy", actor)
    _write(shop, [each for each in known if each is not found])
    shop.archive.record("probe set dropped", found.model_dump(mode="json", exclude={"path"}), actor=actor)
    return found


def read_set(entry: ProbeSet) -> "Probe":
    """The labelled set, read again.

    Raises:
        RequestError: It is not there, or not what it was.
    """
    from perdure.requests.concepts import read_probe

    say = f"the labelled set {entry.name!r} was read from {entry.path}"
    again = "Put it back, or drop it: perdure concepts drop NAME"
    try:
        probe = read_probe(
            entry.path,
            test=entry.test_path or None,
            name=entry.name,
            test_share=entry.test_share,
            seed=entry.seed,
            skip_bad=True,
        )
    except RequestError as error:
        raise RequestError(f"{say}, which cannot be read now: {error}. {again}", error.problems) from error
    if probe.digest != entry.digest:
        raise RequestError(f"{say}, which holds something else now. {again}, and add it anew")
    return probe


def entry_of(
    probe: "Probe", path: str | Path, test_path: str | Path = "", *, test_share: float = 0.2, seed: int = 0
) -> ProbeSet:
    """What is kept of a set that `read_probe` gave for these arguments."""
    return ProbeSet(
        name=probe.name,
        path=place_of(path),
        test_path=place_of(test_path),
        digest=probe.digest,
        side=probe.side,
        test_share=test_share,
        seed=seed,
    )


def _check_side(shop: "Workspace", entry: ProbeSet) -> None:
    """Raises: RequestError."""
    from perdure.workspace.watched import encoder_of

    sides = encoder_of(shop, shop.newest()).sides
    if entry.side not in sides:
        read = " and ".join(f"{side}s" for side in sides)
        raise RequestError(f"the set {entry.name!r} holds {entry.side}s; this workspace's model reads {read}")


def place_of(path: str | Path) -> str:
    """Where data lies, wherever it is asked for from: a whole path, or the id of a data set on the hub."""
    return str(Path(path).absolute()) if str(path) and Path(path).exists() else str(path)


def _write(shop: "Workspace", entries: list[ProbeSet]) -> None:
    data = canonical_json(_Sets(sets=tuple(entries)).model_dump(mode="json"))
    write_atomic(shop.folder / FOLDER / _FILE, f"{data}\n".encode())
