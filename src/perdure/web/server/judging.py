"""A candidate as somebody sees it who decides: the report's page in parts, the verdict, who agreed, what is missing."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from markupsafe import Markup

from perdure.measuring import Report
from perdure.web.report import shown
from perdure.web.server.rendering import fill
from perdure.web.server.seeing import Sight
from perdure.web.server.words import _, language
from perdure.workspace import Version, Workspace
from perdure.workspace.people import same
from perdure.workspace.rulings import Comment, Consent, Rejection, Standing

_KEPT = 24


@dataclass(frozen=True)
class Pictures:
    """The report's page in parts: its headline, the links to its sections, the sections."""

    headline: Markup
    links: Markup
    sections: Markup


@dataclass(frozen=True)
class Candidate:
    """Everything about a version that a decision looks at.

    Attributes:
        version: Which.
        report: Its latest report, judged by the policy in force; None where it was never measured.
        seen: The digest of that report, which a consent names.
        policy: The digest of the policy, which a consent names.
        pictures: The report's page in parts.
        standing: Who approved validly, and what is missing for production.
        consents: Every approval, with what voids it.
        rejections: Every rejection.
        comments: What was written.
    """

    version: Version
    report: Report | None
    seen: str
    policy: str
    pictures: Pictures | None
    standing: Standing
    consents: Sequence[Consent]
    rejections: Sequence[Rejection]
    comments: Sequence[Comment]


def candidate(sight: Sight, version: Version) -> Candidate:
    """A version as somebody sees it who decides."""
    shop = sight.shop
    policy, seen = shop.policy, shop.archive.report_digest(version) or ""
    judged = shop.gate(version) if seen else None
    return Candidate(
        version=version,
        report=judged,
        seen=seen,
        policy=policy.digest,
        pictures=_pictures(_Judged(seen, policy.digest, language(), judged)) if judged else None,
        standing=shop.standing(version),
        consents=shop.approvals(version),
        rejections=shop.rejections(version),
        comments=shop.comments(version),
    )


def hindrance(found: Candidate, name: str) -> str:
    """Why somebody cannot approve now, in words; empty where they may. The workspace decides it once more."""
    if found.report is None:
        return _("It was not measured yet.")
    if found.report.verdict == "fail":
        return _("It fails its gates under the policy in force.")
    if same(found.version.requester, name):
        return _("You asked for it: somebody else must approve.")
    if any(same(given, name) for given in found.standing.given):
        return _("You approved it already.")
    return ""


class _Judged:
    """A judged report, the same as another one of equal hashes in the same language."""

    def __init__(self, seen: str, policy: str, language: str, report: Report) -> None:
        self.key, self.report = (seen, policy, language), report

    def __hash__(self) -> int:
        return hash(self.key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Judged) and self.key == other.key


@lru_cache(maxsize=_KEPT)
def _pictures(judged: _Judged) -> Pictures:
    context = shown(judged.report)
    names = ("headline", "sections_nav", "sections")
    return Pictures(*(fill(f"{name}.html.j2", **context) for name in names))


def verdict_of(shop: Workspace, version: Version) -> str:
    """The verdict of a version's latest report under the policy in force; empty where it was not measured."""
    return shop.gate(version).verdict if shop.archive.report_digest(version) else ""
