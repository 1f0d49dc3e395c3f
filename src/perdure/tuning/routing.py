"""Routing: which group's adapter answers a request, decided by the request's own text.

Shape suffixes: P pieces of a request, N instructions, D dimensions.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from perdure.errors import SettingError
from perdure.tuning.similarity import Encoder, likeness

_LOG = logging.getLogger(__name__)
_LINES = 8  # at either end of a request: where people write what is to be done
_TIE = 1e-9

Fallback = Literal["base", "nearest"]


class RoutingConfig(BaseModel):
    """What is done with requests."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["routing"] = "routing"
    fallback: Fallback = Field(
        default="base", description="who answers a request that resembles no group: base, or the nearest group"
    )
    threshold: float | None = Field(
        default=None,
        ge=-1,
        le=1,
        description="similarity from which a group answers; that of the grouping if not given",
    )


@dataclass(frozen=True)
class Route:
    """Who answers a request.

    Attributes:
        group: The group whose adapter answers; None: the base without an adapter.
        similarity: The request's similarity to the nearest group; 0 where there is none.
        nearest: That group.
        fallback: Whether nothing was similar enough, and the fallback decided.
        reason: The choice in words.
    """

    group: str | None
    similarity: float
    nearest: str | None
    fallback: bool
    reason: str


class Router:
    """The choice of a group for each request; falls back openly where no group is alike.

    A request is compared as a whole and line by line (the first and last eight), since what is to be done mostly
    stands in a line of its own beside the input. Two groups with the same instruction cannot be told apart by
    text; the earlier one answers, and the reason says so.

    Args:
        encoder: The encoder that the instructions were grouped with.
        served: From each group with an adapter to the instructions of each of its tasks.
        threshold: Similarity from which a group answers.
        fallback: Who answers otherwise.
    """

    def __init__(
        self,
        encoder: Encoder,
        served: Mapping[str, Sequence[Sequence[str]]],
        *,
        threshold: float,
        fallback: Fallback = "base",
    ) -> None:
        if not -1 <= threshold <= 1:
            raise SettingError(f"a similarity lies between -1 and 1; the threshold given is {threshold}")
        self._encoder = encoder
        self._tasks = {group: [encoder.encode(list(task)) for task in tasks] for group, tasks in served.items()}
        self.threshold = threshold
        self.fallback = fallback

    def similarities(self, text: str) -> dict[str, float]:
        """The similarity of a request to each group: of its best piece to the group's most alike task."""
        pieces_PD = self._encoder.encode(_pieces(text))
        return {
            group: max((float(likeness(pieces_PD, task_ND).max()) for task_ND in tasks), default=-1.0)
            for group, tasks in self._tasks.items()
        }

    def route(self, text: str) -> Route:
        """Who answers this request; fallbacks are logged at level INFO."""
        found = self.similarities(text)
        if not found:
            return _logged(Route(None, 0.0, None, True, "the base answers: no group has an adapter"))
        nearest = max(found, key=lambda group: found[group])
        similarity = found[nearest]
        alike = [group for group, value in found.items() if group != nearest and value >= similarity - _TIE]
        said = f"similarity {similarity:.3f} to {nearest}, threshold {self.threshold:.3f}"
        said += f"; {', '.join(alike)} just as alike" if alike else ""
        if similarity >= self.threshold - _TIE:
            return Route(nearest, similarity, nearest, False, f"{nearest} answers: {said}")
        if self.fallback == "base":
            return _logged(Route(None, similarity, nearest, True, f"the base answers as the fallback: {said}"))
        return _logged(Route(nearest, similarity, nearest, True, f"{nearest} answers as the fallback, nearest: {said}"))


def _pieces(text: str) -> list[str]:
    lines = [line.strip() for line in text.splitlines() if any(map(str.isalnum, line))]
    ends = lines if len(lines) <= 2 * _LINES else [*lines[:_LINES], *lines[-_LINES:]]
    return list(dict.fromkeys([text.strip(), *ends]))


def _logged(route: Route) -> Route:
    _LOG.info(route.reason)
    return route
