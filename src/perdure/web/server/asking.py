"""What people ask of the worker: questions to versions, comparisons, measurements; put into the queue."""

from collections.abc import Mapping, Sequence
from typing import Any

from perdure.content import digest_json
from perdure.errors import SettingError
from perdure.web.server.jobs import Job
from perdure.web.server.services import Services
from perdure.web.server.words import _
from perdure.workspace import Version, Workspace

PROMPT_LIMIT = 4000
TOKENS_LIMIT = 256
ASKED_LIMIT = 4
DIFFERENCES = "difference"


def ask(services: Services, refs: Sequence[str], prompt: str, *, chat: bool, tokens: int, requester: str) -> Job:
    """A question to versions, side by side.

    Raises:
        SettingError: No text, too much of it, too many versions or tokens.
        UnknownNameError: There is no such version.
    """
    if not 1 <= len(prompt.strip()) <= PROMPT_LIMIT:
        raise SettingError(_("A question has 1 to {most} characters.").format(most=PROMPT_LIMIT))
    if not 1 <= len(refs) <= ASKED_LIMIT or not 1 <= tokens <= TOKENS_LIMIT:
        words = _("Up to {versions} versions answer with up to {tokens} tokens.")
        raise SettingError(words.format(versions=ASKED_LIMIT, tokens=TOKENS_LIMIT))
    names = {services.shop.version(ref).name: None for ref in refs}
    payload = {"versions": list(names), "prompt": prompt, "chat": chat, "tokens": tokens}
    return services.jobs.add("ask", payload, requester=requester, title=prompt.strip())


def measure(services: Services, version: Version, requester: str) -> Job:
    """A measurement of a version."""
    title = _("Measure {version}").format(version=version.name)
    return services.jobs.add("measure", {"version": version.id}, requester=requester, title=title)


def compare(services: Services, first: Version, second: Version, *, requester: str) -> Job | None:
    """A comparison of two versions; None where it is known already."""
    if known_difference(services.shop, first, second) is not None:
        return None
    running = comparing(services, first, second)
    if running is not None and not running.over:
        return running
    title = _("Compare {first} and {second}").format(first=first.name, second=second.name)
    payload = {"first": first.id, "second": second.id}
    return services.jobs.add("compare", payload, requester=requester, title=title)


def comparing(services: Services, first: Version, second: Version) -> Job | None:
    """The newest request to compare two versions, if any."""
    pair = {"first": first.id, "second": second.id}
    return next((job for job in services.jobs.newest(kinds=("compare",)) if job.payload == pair), None)


def verify(services: Services, requester: str) -> Job:
    """A check of the whole workspace, every byte."""
    return services.jobs.add("verify", {}, requester=requester, title=_("Verify everything"))


def difference_key(shop: Workspace, first: Version, second: Version) -> str:
    """Under what a comparison is remembered: the two versions and the reports that it cites."""
    reports = [shop.archive.report_digest(version) for version in (first, second)]
    return digest_json([first.id, second.id, *reports])


def known_difference(shop: Workspace, first: Version, second: Version) -> Mapping[str, Any] | None:
    """What differs between two versions, where it was computed before."""
    return shop.archive.recall(DIFFERENCES, difference_key(shop, first, second))
