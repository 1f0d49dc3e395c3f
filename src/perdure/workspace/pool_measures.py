"""What a version with a pool does on the general suite, through its router, and what the report says of the pool."""

from typing import TYPE_CHECKING

from perdure.measuring import measure_language, measure_retention
from perdure.measuring.outcomes import Outcomes
from perdure.measuring.pooled import (
    LANGUAGE,
    PoolGroup,
    PoolMeasures,
    RoutedItem,
    general_requests,
    part_of_suite,
    with_answers,
)
from perdure.measuring.suites import Suite
from perdure.workspace.pools import carrying, has_pool, opened_pool
from perdure.workspace.records import Version
from perdure.workspace.remembering import labelled

if TYPE_CHECKING:
    from perdure.tuning.pool import Pool
    from perdure.tuning.routing import Route
    from perdure.workspace.workspace import Workspace

_SHOWN = 80  # characters of an item


def routed_outcomes(shop: "Workspace", version: Version, suite: Suite, plain: Outcomes) -> Outcomes:
    """What a version answers to the general suite; where nothing is routed, no model is run.

    Args:
        shop: The workspace.
        version: One with a pool.
        suite: The general suite.
        plain: What its weights answer without any adapter.
    """
    with opened_pool(shop, version) as pool:
        routes = _general_routes(pool, suite, plain)
    chosen: dict[str, dict[str, list[int]]] = {}
    for part, found in routes.items():
        for place, route in enumerate(found):
            if route.group is not None:
                chosen.setdefault(route.group, {}).setdefault(part, []).append(place)
    outcomes = plain
    for group, places in chosen.items():
        asked, said = part_of_suite(suite, list(places)), labelled(shop, version)
        with carrying(shop, version, group) as (model, tokenizer):
            others = Outcomes(
                retention=measure_retention(model, tokenizer, asked, said) if places.keys() - {LANGUAGE} else {},
                language=measure_language(model, tokenizer, asked, said) if LANGUAGE in places else (),
            )
        outcomes = with_answers(outcomes, others, places)
    return outcomes


def pool_measures(shop: "Workspace", version: Version, suite: Suite, after: Outcomes) -> PoolMeasures | None:
    """What the report says of a version's pool; None without one.

    Args:
        shop: The workspace.
        version: The version.
        suite: The general suite.
        after: What the version answered to it.
    """
    if not has_pool(version):
        return None
    notes = shop.archive.solved(version).notes.get("pool", {})
    with opened_pool(shop, version) as pool:
        routes = _general_routes(pool, suite, after)
        growth = pool.growth_report()
        return PoolMeasures(
            groups=groups_of(pool),
            parameters=growth.parameters,
            size=growth.size,
            kept=growth.kept,
            share=growth.share,
            threshold=pool.threshold,
            fallback=pool.routing.fallback,
            changed=str(notes.get("group", "")),
            reason=reason_of(notes),
            general=sum(map(len, routes.values())),
            routed=_routed(suite, after, routes),
        )


def groups_of(pool: "Pool") -> tuple[PoolGroup, ...]:
    """The groups of a pool, with what they take up."""
    growth = pool.growth_report()
    base = growth.parameters / growth.share if growth.share else 0.0
    found = []
    for name, size in growth.groups.items():
        current, tasks = pool.current(name), pool.groups.members(name)
        found.append(
            PoolGroup(
                name=name,
                tasks=tasks,
                unserved=tuple(task for task in tasks if current is None or task not in current.tasks),
                versions=size.versions,
                parameters=size.parameters,
                size=size.size,
                share=size.parameters / base if base else 0.0,
            )
        )
    return tuple(found)


def reason_of(notes: "dict[str, object]") -> str:
    """Why a task went to its group, and what the group's earlier tasks said to it, in words."""
    joined, merge = notes.get("joined"), notes.get("merge")
    parts = [f"{part['task']} {part['reason']}" for part in (joined,) if isinstance(part, dict)]
    parts += [str(part["reason"]) for part in (merge,) if isinstance(part, dict)]
    if isinstance(joined, dict) and notes.get("group") != joined.get("group"):
        parts.append(f"it opened {notes.get('group')} instead")
    return "; ".join(parts)


def _general_routes(pool: "Pool", suite: Suite, outcomes: Outcomes) -> "dict[str, list[Route]]":
    router = pool.router()
    requests = general_requests(suite, outcomes)
    return {part: [router.route(text) for text in texts] for part, texts in requests.items()}


def _routed(suite: Suite, outcomes: Outcomes, routes: "dict[str, list[Route]]") -> tuple[RoutedItem, ...]:
    items = {part: [answer.item for answer in answers] for part, answers in outcomes.retention.items()}
    items[LANGUAGE] = [passage.text for passage in suite.passages]
    return tuple(
        RoutedItem(part=part, item=item[:_SHOWN], group=route.group, similarity=round(route.similarity, 3))
        for part, found in routes.items()
        for item, route in zip(items[part], found, strict=True)
        if route.group is not None
    )
