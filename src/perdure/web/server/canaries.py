"""Canaries as people start and see them: the plan as a form says it, and how one stands by what the gateway counted."""

import re
import time
import unicodedata
from contextlib import closing
from dataclasses import dataclass

from pydantic import ValidationError

from perdure.errors import SettingError
from perdure.governance.canary import CanaryMeasures, CanaryPlan, Decision, decide
from perdure.web.server.seeing import Sight
from perdure.web.server.words import _
from perdure.workspace import Version, Workspace
from perdure.workspace.releases import Canary

_BETWEEN = re.compile(r"[\s,;、，；%]+")
_STEPS = 20


@dataclass(frozen=True)
class Seen:
    """What the gateway saw of a canary, and what its plan says to that."""

    measures: CanaryMeasures
    decision: Decision


@dataclass(frozen=True)
class Shown:
    """A canary as pages show it.

    Attributes:
        canary: Its plan and its steps.
        stable: The name of the version that the alias holds.
        candidate: The name of the other one.
        seen: What the gateway saw; None where it does not run, did not count, or the canary is over.
        further: The next share of the plan; None after the last.
    """

    canary: Canary
    stable: str
    candidate: str
    seen: Seen | None
    further: float | None


def shown(sight: Sight, canary: Canary) -> Shown:
    """A canary with what is known of it now."""
    further = next((weight for weight in canary.plan.weights if weight > canary.weight), None)
    seen = _seen(sight.shop, canary) if canary.running else None
    return Shown(canary, sight.name(canary.stable), sight.name(canary.candidate), seen, further)


def of_version(sight: Sight, version: Version) -> list[Shown]:
    """Every canary of a candidate, the newest first."""
    found = [canary for canary in sight.shop.canaries() if canary.candidate == version.id]
    return [shown(sight, canary) for canary in reversed(found)]


def free_aliases(sight: Sight, version: Version) -> list[tuple[str, str]]:
    """The aliases on which a version can begin, as choices: with its consent, another version and no canary."""
    taken = {canary.alias for canary in sight.canaries}
    found = [alias for alias, held in sight.aliases.items() if held.id != version.id and alias not in taken]
    return [(alias, alias) for alias in found if sight.shop.standing(version, alias).enough]


def _seen(shop: Workspace, canary: Canary) -> Seen | None:
    from perdure.web.gateway.settings import read_settings
    from perdure.web.gateway.steering import measured
    from perdure.web.gateway.traffic import FILE_NAME, Traffic

    if not (shop.folder / FILE_NAME).is_file():
        return None
    with closing(Traffic(shop.folder)) as traffic:
        found = measured(canary, traffic, read_settings(shop.folder).canary, time.time())
    return Seen(found, decide(canary.plan, found)) if found.requests else None


def shares_of(text: str) -> tuple[float, ...]:
    """The shares that a form names in percent, such as "5, 20, 50".

    Raises:
        SettingError: They are no percentages that rise.
    """
    parts = [part for part in _BETWEEN.split(unicodedata.normalize("NFKC", text)) if part]
    try:
        found = [float(part) for part in parts]
    except ValueError:
        found = []
    if not 0 < len(found) <= _STEPS or found != sorted(set(found)) or not 0 < found[0] <= found[-1] < 100:
        words = _("Shares are percentages between 0 and 100, each larger than the one before, such as 5, 20, 50.")
        raise SettingError(words)
    return tuple(share / 100 for share in found)


def plan_of(shares: str, *, minutes: float, requests: int, success: float, failure: float) -> CanaryPlan:
    """The plan that a form says.

    Args:
        shares: In percent, rising.
        minutes: How long each is held at least.
        requests: Requests that the candidate answers at each share at least.
        success: It goes on when surely fewer fail, in percent.
        failure: It falls back when surely more fail, in percent.

    Raises:
        SettingError: It cannot be a plan.
    """
    if success > failure:
        raise SettingError(_("It cannot go on with more failures than those with which it falls back."))
    given = {"weights": shares_of(shares), "hold_seconds": 60 * minutes, "hold_requests": requests}
    try:
        return CanaryPlan.model_validate({**given, "success": success / 100, "failure": failure / 100})
    except ValidationError as error:
        raise SettingError(str(error.errors()[0]["msg"])) from error
