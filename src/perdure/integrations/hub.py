"""Pushing a version to the Hugging Face Hub, with its model card: one commit, one tag."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perdure.errors import PerdureError, RefusedError, SettingError
from perdure.evidence.card import model_card
from perdure.evidence.facts import facts_of
from perdure.workspace.records import Version

if TYPE_CHECKING:
    from perdure.workspace.workspace import Workspace


@dataclass(frozen=True)
class Pushed:
    """A version on the hub.

    Attributes:
        repo: The repository, owner/name.
        commit: The commit with exactly this version's files.
        tag: The tag that names it: version and the start of its id.
        url: Where it is.
    """

    repo: str
    commit: str
    tag: str
    url: str


def push(
    shop: "Workspace", version: Version, repo: str, *, actor: str, public: bool = False, api: Any = None
) -> Pushed:
    """Upload a measured version as a model repository, whose files are then exactly those of the version.

    Every tensor is checked by its hash on the way; the copy that is uploaded lies below `$TMPDIR` meanwhile. The token
    is the one that `hf auth login` or `$HF_TOKEN` gave.

    Args:
        shop: The workspace.
        version: The version.
        repo: Owner and name; made if it is not there.
        actor: Who pushes, for the ledger.
        public: Whether everybody may see a repository that is made now; it needs a valid approval.
        api: An `HfApi` in place of the usual one.

    Raises:
        RefusedError: It was rejected, or would be public and nobody approved.
        WorkspaceError: It was never measured.
        SettingError: The repository's name cannot be.
        PerdureError: The hub refuses or cannot be reached.
    """
    from huggingface_hub import HfApi

    _check_name(repo)
    approved = _check_standing(shop, version)
    if public and not approved:
        raise RefusedError(f"{version.name} is not made public: {shop.standing(version).missing}. Push it privately")
    card = model_card(facts_of(shop, version))
    hub, tag = api or HfApi(library_name="perdure"), f"{version.name}-{version.id[:12]}"
    with tempfile.TemporaryDirectory(prefix="perdure-push-") as scratch:
        folder = Path(scratch) / "model"
        shop.archive.checkout(version, folder)
        (folder / "README.md").write_text(card, encoding="utf-8")
        with _refusals(repo):
            _ensure_repo(hub, repo, private=not public, approved=approved)
            done = _upload(hub, folder, repo, tag, f"{version.name}, perdure version {version.id}")
    pushed = Pushed(repo, str(done.oid), tag, str(done.commit_url))
    told = {"to": "hub", "version": version.id, "repo": repo, "commit": pushed.commit, "public": public}
    shop.archive.record("push", told, actor=actor)
    return pushed


def _check_name(repo: str) -> None:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise SettingError(f"{repo!r} is no name of a repository on the hub: {error}") from error
    if "/" not in repo:
        raise SettingError(f"a repository is named OWNER/NAME; given {repo!r}")


def _check_standing(shop: "Workspace", version: Version) -> bool:
    """Whether everybody may see a version: the original, or one with the consent that production needs."""
    rejected = shop.rejected(version)
    if rejected is not None:
        raise RefusedError(f"{version.name} stands on {rejected.name}, which was rejected, and is not pushed")
    return version.parent is None or shop.standing(version).enough


def _ensure_repo(hub: Any, repo: str, *, private: bool, approved: bool) -> None:
    hub.create_repo(repo, private=private, exist_ok=True, repo_type="model")
    # It may have been there, and be public.
    if not approved and not hub.repo_info(repo, repo_type="model").private:
        raise RefusedError(f"{repo} is public and the version is not approved; push it to a private repository")


def _upload(hub: Any, folder: Path, repo: str, tag: str, message: str) -> Any:
    done = hub.upload_folder(
        repo_id=repo, folder_path=folder, commit_message=message, repo_type="model", delete_patterns="*"
    )
    hub.create_tag(repo, tag=tag, revision=done.oid, exist_ok=True, repo_type="model")
    return done


@contextmanager
def _refusals(repo: str) -> Iterator[None]:
    """Turn what the hub raises into an error of perdure's own."""
    from huggingface_hub.errors import HfHubHTTPError

    try:
        yield
    except (HfHubHTTPError, OSError) as error:
        raise PerdureError(f"the hub refused {repo}, or cannot be reached: {error}") from error
