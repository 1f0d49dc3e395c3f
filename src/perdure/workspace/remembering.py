"""Outcomes that are measured once and kept under all that they depend on."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from perdure.content import digest_json
from perdure.measuring.outcomes import Outcomes

if TYPE_CHECKING:
    from perdure.workspace.records import Version
    from perdure.workspace.workspace import Workspace

OUTCOMES = "outcomes"


def once(shop: "Workspace", key: list[Any], run: Callable[[], Outcomes]) -> Outcomes:
    """The outcomes kept under this key; run and kept first if there are none."""
    digest = digest_json(key)
    known = shop.archive.recall(OUTCOMES, digest)
    if known is None:
        shop.archive.remember(OUTCOMES, digest, run().model_dump(mode="json"))
        known = shop.archive.recall(OUTCOMES, digest)
    return Outcomes.model_validate(known)


def labelled(shop: "Workspace", version: "Version") -> Callable[[str, int, int], None]:
    """The workspace's progress, with the version's name before each stage."""
    return lambda stage, done, total: shop.progress(f"{version.name}: {stage}", done, total)
