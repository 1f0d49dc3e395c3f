"""Versions that answer with a pool of adapters: read from their files, routed, carried by the base's model."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from perdure.content import digest_json, scratch_folder
from perdure.deltas import Delta
from perdure.errors import IntegrityError, RefusedError, WorkspaceError
from perdure.tuning.carrying import carried
from perdure.workspace.manifest import Manifest, is_pool_file
from perdure.workspace.pool_folder import flat_name, lay_out
from perdure.workspace.records import Version

if TYPE_CHECKING:
    from perdure.tuning.pool import Pool
    from perdure.tuning.routing import Route
    from perdure.workspace.workspace import Workspace

T = TypeVar("T")
Ask = Callable[[Any, Any, Sequence[int]], Sequence[T]]
"""Asks a model, with its tokenizer, the questions with these places; one answer each."""


@dataclass(frozen=True)
class Answering:
    """What answers a request.

    Attributes:
        model: The version's model; with the group's adapter while it is open.
        tokenizer: Its tokenizer.
        route: Which group was chosen and why; None for a version without a pool.
    """

    model: Any
    tokenizer: Any
    route: "Route | None"


def has_pool(version: Version) -> bool:
    """Whether a version answers with a pool of adapters."""
    return any(map(is_pool_file, version.manifest.files))


def refuse_pool(version: Version, instead: str) -> None:
    """Keep weights as they are under adapters that were trained on them.

    Raises:
        RefusedError: The version has a pool.
    """
    if has_pool(version):
        raise RefusedError(
            f"{version.name} answers with a pool of adapters, which were trained on its weights as they are; "
            f"{instead}, or name a version without a pool (--on)"
        )


def weights_id(manifest: Manifest) -> str:
    """What the adapters of a pool name as their base: the content of a version's weights."""
    hashes = {name: record.hash for name, record in manifest.tensors.items()}
    return f"weights-{digest_json(hashes)[:16]}"


def weights_of(shop: "Workspace", version: Version) -> Version:
    """The version whose model a version runs: itself, or the one under its pool, with the very same weights."""
    if not has_pool(version):
        return version
    for step in reversed(shop.archive.lineage(version)):
        if not has_pool(step):
            if weights_id(step.manifest) != weights_id(version.manifest):
                raise IntegrityError(f"{version.name} has other weights than {step.name}, which its pool stands on")
            return step
    raise IntegrityError(f"{version.name} has a pool that stands on no version; restore the workspace from a backup")


@contextmanager
def opened_pool(shop: "Workspace", version: Version) -> "Iterator[Pool]":
    """A copy of a version's pool in a folder of its own, to read or to change; the version stays what it is.

    Only the router is there at first; `bring` adds an adapter.

    Raises:
        WorkspaceError: The version has no pool.
    """
    from perdure.tuning.pool import Pool

    if not has_pool(version):
        raise WorkspaceError(f"{version.name} has no pool of adapters; perdure tune TASKS --pool makes one")
    with scratch_folder(shop.folder / "tmp") as scratch:
        lay_out(shop.archive.pool_files(version, "pool.router."), scratch)
        yield Pool.open(scratch)


def bring(shop: "Workspace", version: Version, pool: "Pool", group: str) -> Delta:
    """The adapter of a group that is in use, read from the version and checked; empty where there is none."""
    current = pool.current(group)
    if current is None:
        return Delta()
    if not (pool.folder / current.folder).is_dir():
        lay_out(shop.archive.pool_files(version, flat_name(f"{current.folder}/")), pool.folder)
    return pool.delta(group)


@contextmanager
def answering(shop: "Workspace", version: Version, text: str) -> Iterator[Answering]:
    """The model that answers a request: the version's, carrying the adapter of the request's group while open."""
    model, tokenizer = shop.load(version)
    if not has_pool(version):
        yield Answering(model, tokenizer, None)
        return
    with opened_pool(shop, version) as pool:
        route = pool.router().route(text)
        adapter = bring(shop, version, pool, route.group) if route.group else Delta()
    with carried(model, adapter):
        yield Answering(model, tokenizer, route)


def routes_of(shop: "Workspace", version: Version, texts: Sequence[str]) -> "list[Route]":
    """Who answers each request."""
    with opened_pool(shop, version) as pool:
        router = pool.router()
        return [router.route(text) for text in texts]


def asked_through(shop: "Workspace", version: Version, texts: Sequence[str], ask: Ask[T]) -> list[T]:
    """Answers to requests in their order, each by the model that a version would let answer it.

    Without a pool all are asked at once; with one, group by group, each adapter carried once.

    Args:
        shop: The workspace.
        version: The version.
        texts: The requests as a router reads them.
        ask: Asks those with the given places.
    """
    if not has_pool(version):
        return list(ask(*shop.load(version), range(len(texts))))
    places: dict[str | None, list[int]] = {}
    for place, route in enumerate(routes_of(shop, version, texts)):
        places.setdefault(route.group, []).append(place)
    found: dict[int, T] = {}
    for group, chosen in places.items():
        with carrying(shop, version, group) as (model, tokenizer):
            found |= zip(chosen, ask(model, tokenizer, chosen), strict=True)
    return [found[place] for place in range(len(texts))]


@contextmanager
def carrying(shop: "Workspace", version: Version, group: str | None) -> Iterator[tuple[Any, Any]]:
    """The version's model and tokenizer, with a group's adapter while open; None: with none."""
    adapter = Delta()
    if group is not None:
        with opened_pool(shop, version) as pool:
            adapter = bring(shop, version, pool, group)
    model, tokenizer = shop.load(version)
    with carried(model, adapter):
        yield model, tokenizer
