"""Concepts of a workspace: found in unlabelled data, kept in its folder, protected by name, watched by every report."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from perdure.content import digest_json
from perdure.errors import RequestError
from perdure.measuring.watched import Marks, WatchedMeasures
from perdure.measuring.watched_files import FOLDER, load_found, read_marks
from perdure.workspace.records import Version

if TYPE_CHECKING:
    from perdure.measuring.discovery import Discovered
    from perdure.measuring.watching import Watching
    from perdure.models.encoders import Encoder
    from perdure.requests.concepts import Unlabelled
    from perdure.workspace.workspace import Workspace

_KIND = "watched"
_CACHE = "features"


def features_folder(place: Path) -> Path:
    """Where features that were read once are kept; it can be deleted."""
    return place / FOLDER / _CACHE


def encoder_of(shop: "Workspace", version: Version, *, fresh: bool = False) -> "Encoder":
    """A version as an encoder; of a decoder, the features of what it reads. `fresh`: not the model that is loaded."""
    from perdure.models.encoder_inputs import load_image_processor
    from perdure.models.encoders import Encoder

    model, tokenizer = shop.load(version, fresh=fresh)
    with tempfile.TemporaryDirectory() as scratch:
        for name, data in shop.archive.side_files(version).items():
            (Path(scratch) / name).write_bytes(data)
        found = Encoder.of(model, tokenizer, load_image_processor(Path(scratch)))
    found.version = version.id
    return found


def note_marks(shop: "Workspace", before: Marks | None, after: Marks, actor: str) -> None:
    """Write down who changed what is watched; to take a protection away takes who may change the policy.

    Raises:
        RefusedError: The actor may not.
    """
    kept = before.weights if before is not None else {}
    replaced = before is not None and before.key != after.key and bool(kept)
    weaker = any(after.weights.get(name, -1.0) < weight for name, weight in kept.items())
    shop.archive.check_permitted("policy" if weaker or replaced else "comment", actor)
    shop.archive.record("watch concepts", after.model_dump(mode="json"), actor=actor)


def watched_measures(shop: "Workspace", version: Version, parent: Version, base: Version) -> WatchedMeasures | None:
    """What became of the watched concepts; None where none are watched. Every version is probed once.

    Raises:
        RequestError: The data in which they were found is not where it was, or has changed.
        IntegrityError: Their files are damaged.
    """
    marks = read_marks(shop.folder / FOLDER)
    if marks is None:
        return None
    from perdure.measuring.watching import build_watched

    found = load_found(shop.folder / FOLDER, marks.key)
    data = data_of(found)
    steps = {step.id: step for step in (base, parent, version)}
    seen = {name: _watch(shop, step, found, data) for name, step in steps.items()}
    oldest = None if base.id == parent.id else seen[base.id]
    return build_watched(found.card, seen[parent.id], seen[version.id], oldest, marks=marks)


def data_of(found: "Discovered") -> "Unlabelled":
    """The data in which concepts were found, read again from where it was.

    Raises:
        RequestError: It cannot be read.
    """
    from perdure.requests.concepts import read_unlabelled

    try:
        return read_unlabelled(found.card.path, skip_bad=True)
    except RequestError as error:
        raise RequestError(
            f"watched concepts were found in {found.card.path}, which cannot be read now: {error}. Put it back, or "
            "find concepts anew: perdure concepts find DATA",
            error.problems,
        ) from error


def _watch(shop: "Workspace", version: Version, found: "Discovered", data: "Unlabelled") -> "Watching":
    from perdure.measuring.watching import WatchAnswers, WatchSettings, watch_encoder

    settings = WatchSettings()
    key = digest_json([version.id, found.card.key, settings.digest])
    kept = shop.archive.recall(_KIND, key)
    seen = watch_encoder(
        encoder_of(shop, version),
        found,
        data,
        settings,
        known=WatchAnswers.model_validate(kept) if kept else None,
        folder=features_folder(shop.folder),
        progress=lambda stage, done, total: shop.progress(f"{version.name}: {stage}", done, total),
    )
    if kept is None:
        shop.archive.remember(_KIND, key, seen.answers.model_dump(mode="json"))
    return seen
