"""Canaries steered by what was seen: more requests for a good candidate, none for a bad one."""

import logging
import time
from collections.abc import Callable
from datetime import datetime

from perdure.errors import PerdureError
from perdure.governance.canary import CanaryMeasures, Decision, decide
from perdure.web.gateway.routing import Routing
from perdure.web.gateway.settings import Judging
from perdure.web.gateway.traffic import Traffic
from perdure.workspace import Workspace
from perdure.workspace.people import machine_name
from perdure.workspace.releases import Canary

_LOG = logging.getLogger(__name__)
_AGAIN_S = 60.0

ACTOR = machine_name("gateway")
"""Under which name the gateway carries out what the plan of a canary says."""


class Steering:
    """Carries out the plans that operators gave canaries when they started them.

    Args:
        shop: The workspace.
        routing: Stops sending requests to a candidate the moment that it fails, before that is written down.
        traffic: What was seen.
        judging: What counts as a failure.
        clock: The time in seconds since 1970.
    """

    def __init__(
        self,
        shop: Workspace,
        routing: Routing,
        traffic: Traffic,
        judging: Judging,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._shop, self._routing, self._traffic = shop, routing, traffic
        self._judging, self._clock = judging, clock
        self._refused: dict[int, float] = {}
        self._looked = 0.0

    def look(self) -> None:
        """Judge every canary that runs, and carry out what is decided; take back emergencies that are over."""
        for canary in self._routing.table().canaries.values():
            if self._clock() - self._refused.get(canary.number, -_AGAIN_S) >= _AGAIN_S:
                self._judge(canary)
        if self._clock() - self._looked >= self._judging.look_seconds:
            self._looked = self._clock()
            self._shop.end_expired()

    def measures(self, canary: Canary) -> CanaryMeasures:
        """What was seen of a canary, on both sides."""
        return measured(canary, self._traffic, self._judging, self._clock())

    def _judge(self, canary: Canary) -> None:
        decision = decide(canary.plan, self.measures(canary))
        try:
            self._carry_out(canary, decision)
        except PerdureError as error:  # consent was withdrawn, a role is missing, somebody else writes
            self._refused[canary.number] = self._clock()
            _LOG.warning(
                "canary %d of %s: %s was not possible: %s", canary.number, canary.alias, decision.action, error
            )

    def _carry_out(self, canary: Canary, decision: Decision) -> None:
        number, reason = canary.number, decision.reason
        if decision.action == "fall back":
            self._routing.halt(number)
            self._shop.end_canary(canary.alias, "fall back", actor=ACTOR, reason=reason, number=number)
        elif decision.action == "promote":
            self._shop.end_canary(canary.alias, "promote", actor=ACTOR, reason=reason, number=number)
        elif decision.weight > canary.weight:
            self._shop.step_canary(canary.alias, decision.weight, actor=ACTOR, reason=reason, number=number)


def measured(canary: Canary, traffic: Traffic, judging: Judging, now: float) -> CanaryMeasures:
    """What was seen of a canary, on both sides.

    Args:
        canary: Which.
        traffic: What was seen.
        judging: What counts as a failure.
        now: The time in seconds since 1970.
    """
    since = datetime.fromisoformat(canary.steps[-1].time).timestamp()
    mine, stable = (
        traffic.tally(canary.number, version, since=since, refusals=judging.refusals, bad_score=judging.bad_score)
        for version in (canary.candidate, canary.stable)
    )
    return CanaryMeasures(
        weight=canary.weight,
        held_seconds=max(0.0, now - since),
        held_requests=mine.since,
        requests=mine.requests,
        failures=mine.failures,
        seconds=mine.seconds,
        stable_seconds=stable.seconds,
    )
