"""Asking a version that serves again, as it was asked when it was made, on the machine and libraries of today.

The weights of a version never change, and its figures can: libraries, drivers and machines do, and policies too.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from perdure.errors import SettingError, WorkspaceError
from perdure.governance.drift import AGAINST_BASE, AGAINST_THEN, Finding, drift
from perdure.measuring import Outcomes, Suite, build_language, build_retention, measure_language, measure_retention
from perdure.measuring.course import Cohort
from perdure.measuring.sequences import by_age, knows
from perdure.workspace.measurements import general_outcomes, known_outcomes
from perdure.workspace.observations import Observation
from perdure.workspace.people import SYSTEM
from perdure.workspace.pool_measures import routed_outcomes
from perdure.workspace.pools import asked_through, has_pool, weights_of
from perdure.workspace.records import Version
from perdure.workspace.remembering import labelled

if TYPE_CHECKING:
    from perdure.workspace.workspace import Workspace


def observe(shop: "Workspace", alias: str, *, actor: str = "") -> Observation:
    """Ask what an alias holds again, and keep what it gave; see `Workspace.observe`."""
    version = shop.archive.aliases().get(alias)
    if version is None:
        raise WorkspaceError(f"{alias!r} holds no version; promote one first")
    if shop.is_encoder:
        raise SettingError("the model is an encoder, which writes nothing; measure it with perdure measure")
    if actor:
        shop.archive.check_permitted("observe", actor)  # before the work, not after
    findings = asked_again(shop, version)
    return shop.archive.put_observation(version, alias, findings, actor=actor or SYSTEM, policy=shop.policy.digest)


def asked_again(shop: "Workspace", version: Version) -> list[Finding]:
    """What a version answers now, against when it was first measured and against the base."""
    base = shop.archive.lineage(version)[0]
    then = known_outcomes(shop, version)
    now = general_outcomes(shop, version) if then is None else _ask(shop, version, Suite.built_in())
    oldest = general_outcomes(shop, base) if base.id != version.id else None
    now = now.model_copy(update={"retention": dict(sorted(now.retention.items()))})  # as what is kept is ordered
    before = then or now
    languages = {
        AGAINST_THEN: build_language(before, now),
        AGAINST_BASE: build_language(oldest, now) if oldest is not None else None,
    }
    return drift(build_retention(before, now, oldest), languages, _cohorts(shop, version), shop.policy)


def _ask(shop: "Workspace", version: Version, suite: Suite) -> Outcomes:
    """What a version does on the suite now, whatever is kept of it."""
    if has_pool(version):
        return routed_outcomes(shop, version, suite, _ask(shop, weights_of(shop, version), suite))
    model, tokenizer = shop.load(version)
    return Outcomes(
        suite_id=suite.id,
        retention=measure_retention(model, tokenizer, suite, labelled(shop, version)),
        language=measure_language(model, tokenizer, suite, labelled(shop, version)),
    )


def _cohorts(shop: "Workspace", version: Version) -> Sequence[Cohort]:
    """The facts in force by age, asked as taught; none where none was taught."""
    facts = shop.facts_in_force(version)
    if not facts:
        return ()

    def answer(model: Any, tokenizer: Any, places: Sequence[int]) -> list[bool]:
        return knows(model, tokenizer, [facts[place] for place in places], shop.progress)

    hits = asked_through(shop, version, [fact.prompt for fact in facts], answer)
    return by_age(hits, len(facts))
