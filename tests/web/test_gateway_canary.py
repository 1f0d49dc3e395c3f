"""A canary splits an alias's requests, and what is seen of its candidate decides how it ends."""

import asyncio
import random
import shutil
import time
from collections import Counter
from datetime import timedelta

import pytest
from gateway_shop import GOOD, PLAN, build, opened, settings

from perdure.errors import WorkspaceError
from perdure.governance.canary import CanaryPlan
from perdure.web.gateway.problems import AnswerError
from perdure.web.gateway.routing import Routing
from perdure.web.gateway.splitting import place
from perdure.web.gateway.steering import ACTOR, Steering
from perdure.web.gateway.traffic import Outcome, Traffic
from perdure.workspace import Workspace

PROMPT = {"model": "production", "prompt": "The twin city of Lyon is", "max_tokens": 2}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return build(tmp_path_factory.mktemp("canary") / "shop")


@pytest.fixture
def shop(made, tmp_path):
    return Workspace.open(shutil.copytree(made, tmp_path / "shop"))


def routing_of(shop, seed=0):
    return Routing(shop.archive, unapproved=False, draw=random.Random(seed).random)


def share(routing, conversations):
    names = Counter(routing.choose("production", key).version.name for key in conversations)
    return names["v1"] / names.total(), set(names)


def within(found, weight, n, z=3.5):
    """Whether a share of n requests is one that this weight gives."""
    return abs(found - weight) < z * (weight * (1 - weight) / n) ** 0.5


def test_requests_are_split_by_weight(shop):
    shop.start_canary("v1", "production", PLAN, actor="sato")
    routing = routing_of(shop)
    n = 4000
    for conversations in ([None] * n, [f"app\0{number}" for number in range(n)]):
        found, names = share(routing, conversations)
        assert within(found, 0.3, n)
        assert names == {"v0", "v1"}


def test_places_of_conversations_are_uniform_and_differ_between_canaries():
    n = 4000
    mine, other = ([place(canary, str(key)) for key in range(n)] for canary in (1, 2))
    tenths = Counter(int(10 * value) for value in mine)
    assert sum((tenths[tenth] - n / 10) ** 2 / (n / 10) for tenth in range(10)) < 27.9  # chi-square, 9 df, p = 0.001
    both = sum(a < 0.3 and b < 0.3 for a, b in zip(mine, other, strict=True))
    assert within(both / n, 0.09, n)


def test_a_conversation_stays_on_its_version_while_the_share_grows(shop):
    shop.start_canary("v1", "production", PLAN, actor="sato")
    routing = routing_of(shop)
    keys = [str(key) for key in range(300)]
    before = {key: routing.choose("production", key).version.name for key in keys}
    assert before == {key: routing.choose("production", key).version.name for key in keys}
    shop.step_canary("production", 0.6, actor="sato")
    after = {key: routing.choose("production", key).version.name for key in keys}
    assert {key for key in keys if before[key] == "v1"} < {key for key in keys if after[key] == "v1"}


def test_other_names_are_not_split(shop):
    shop.promote("v0", "staging", actor="sato")
    shop.start_canary("v1", "production", PLAN, actor="sato")
    routing = routing_of(shop)
    assert {routing.choose(name).version.name for name in ["v0", "staging"] * 50} == {"v0"}


def test_clients_are_told_who_answered_and_users_of_two_applications_are_not_one(shop):
    shop.start_canary("v1", "production", PLAN.model_copy(update={"weights": (0.5,)}), actor="sato")

    async def run():
        async with opened(shop.folder) as (_, client):
            for token in ("good", "other"):
                headers = GOOD | {"authorization": f"Bearer {token}"}
                asked = [PROMPT | {"user": str(user)} for user in range(12)]
                answers = [await client.post("/completions", json=body, headers=headers) for body in asked]
                again = await client.post(
                    "/completions", json=PROMPT, headers=headers | {"X-Perdure-Conversation": "3"}
                )
                yield answers, again

    async def collect():
        return [found async for found in run()]

    sides = []
    for answers, again in asyncio.run(collect()):
        sides.append([answer.json()["model"] for answer in answers])
        assert [answer.headers["x-perdure-version"] for answer in answers] == sides[-1]
        assert {answer.json()["perdure"]["canary"] for answer in answers} == {1}
        assert again.json()["model"] == sides[-1][3]
    assert set(sides[0]) == {"v0", "v1"}
    assert sides[0] != sides[1]


class Clock:
    """The time, some seconds later."""

    later = 0.0

    def __call__(self):
        return time.time() + self.later


@pytest.fixture
def traffic(shop):
    found = Traffic(shop.folder)
    yield found
    found.close()


def steered(shop, traffic, plan, **judging):
    """What steers a new canary of v1, and a way to say what became of its requests."""
    shop.start_canary("v1", "production", plan, actor="sato")
    clock, routing = Clock(), routing_of(shop)
    steering = Steering(shop, routing, traffic, settings(canary=judging).canary, clock)
    ids = (f"cmpl-{number}" for number in range(10**6))

    def saw(kind, count, version="v1", seconds=1.0, score=None):
        identity = (time.time(), "production", shop.version(version).id, 1)
        made = [Outcome(next(ids), *identity, kind, seconds) for _ in range(count)]
        traffic.add(made)
        for outcome in made if score is not None else ():
            traffic.score(outcome.id, score, time.time())
        steering.look()
        return shop.canaries()[-1].steps[-1].event

    return saw, routing, clock


def test_a_good_candidate_goes_on_step_by_step_and_is_promoted(shop, traffic):
    saw, routing, _ = steered(shop, traffic, PLAN)
    assert saw("answered", 19) == "start"  # held for fewer requests than planned
    assert saw("answered", 5) == "step"
    assert routing.table().canaries["production"].weight == 0.6
    assert saw("answered", 19) == "step"
    assert saw("answered", 1) == "promote"
    assert routing.choose("production").version.name == "v1"
    steps = shop.canaries()[-1].steps
    assert [step.actor for step in steps] == ["sato", ACTOR, ACTOR]
    assert [move.actor for move in shop.archive.alias_history("production")][-1] == ACTOR


def test_a_share_is_held_for_its_time(shop, traffic):
    saw, _, clock = steered(shop, traffic, PLAN.model_copy(update={"hold_seconds": 500.0}))
    assert saw("answered", 60) == "start"
    clock.later += 490
    assert saw("answered", 1) == "start"
    clock.later += 10
    assert saw("answered", 1) == "step"


def test_a_candidate_falls_back_at_its_failure_limit(shop, traffic):
    saw, routing, _ = steered(shop, traffic, PLAN)
    assert saw("failed", 30, version="v0") == "start"  # the stable version's failures are not the candidate's
    assert saw("gone", 30) == "start"  # nor those of clients that went away
    assert saw("failed", 2) == "start"
    assert saw("failed", 6) == "fall back"
    assert {routing.choose("production").version.name for _ in range(50)} == {"v0"}
    assert "surely more than" in shop.canaries()[-1].steps[-1].reason
    assert shop.archive.aliases()["production"].name == "v0"
    assert saw("answered", 100) == "fall back"  # and stays so


@pytest.mark.parametrize(
    ("judging", "kind", "score", "ends"),
    [
        ({}, "refused", None, "fall back"),
        ({"refusals": False}, "refused", None, "step"),
        ({}, "answered", 0.2, "fall back"),
        ({"bad_score": 0.1}, "answered", 0.2, "step"),
        ({}, "answered", 0.9, "step"),
    ],
)
def test_what_counts_as_a_failure_is_set(shop, traffic, judging, kind, score, ends):
    saw, _, _ = steered(shop, traffic, PLAN, **judging)
    assert saw(kind, 24, score=score) == ends


def test_a_slow_candidate_falls_back(shop, traffic):
    saw, _, _ = steered(shop, traffic, PLAN.model_copy(update={"slower": 2.0}))
    saw("answered", 5, version="v0", seconds=1.0)
    assert saw("answered", 30, seconds=1.9) == "step"
    assert saw("answered", 60, seconds=2.5) == "fall back"


def test_a_candidate_is_cut_off_at_once_even_if_nothing_can_be_written(shop, traffic, caplog):
    saw, routing, clock = steered(shop, traffic, PLAN)
    shop.grant("boss", "admin", by="boss")  # from now on the gateway would need a role
    assert saw("failed", 20) == "start"
    assert {routing.choose("production").version.name for _ in range(50)} == {"v0"}
    assert "was not possible" in caplog.text
    shop.grant(ACTOR, "operator", by="boss")
    clock.later += 61
    assert saw("gone", 1) == "fall back"


def test_a_withdrawn_consent_keeps_a_candidate_from_production(shop, traffic):
    saw, _, _ = steered(shop, traffic, PLAN.model_copy(update={"weights": (0.3,)}))
    shop.archive.put_report(shop.version("v1"), {"n": "another"}, actor="kato")
    assert saw("answered", 40) == "start"
    assert shop.archive.aliases()["production"].name == "v0"


def test_a_candidate_needs_consent_to_start_and_a_program_cannot_give_it(shop):
    with pytest.raises(Exception, match="approv"):
        shop.start_canary("v3", "production", PLAN, actor=ACTOR)
    with pytest.raises(Exception, match="program"):
        shop.archive.approve(
            shop.version("v3"),
            report=shop.archive.report_digest(shop.version("v3")),
            policy=shop.policy.digest,
            actor=ACTOR,
        )


def test_failing_answers_of_the_gateway_end_a_canary(shop, monkeypatch):
    plan = CanaryPlan(weights=(0.5,), hold_seconds=0, hold_requests=20, success=0.2, failure=0.3)
    shop.start_canary("v1", "production", plan, actor="sato")
    candidate = shop.version("v1").id

    def answer(by_shop, version, *rest):
        if version.id == candidate:
            raise RuntimeError("boom")
        return real(by_shop, version, *rest)

    from perdure.web.gateway import embedded

    real = embedded._answer
    monkeypatch.setattr(embedded, "_answer", answer)

    async def run():
        async with opened(shop.folder, draws=random.Random(3)) as (gateway, client):
            for _ in range(40):
                answer = await client.post("/completions", json=PROMPT)
                yield answer.status_code
                gateway.recorder.flush()

    async def collect():
        return [status async for status in run()]

    found = asyncio.run(collect())
    assert set(found) == {200, 500}
    assert set(found[-15:]) == {200}
    step = shop.canaries()[-1].steps[-1]
    assert (step.event, step.actor) == ("fall back", ACTOR)


def test_a_score_needs_an_answer(traffic):
    with pytest.raises(AnswerError, match="no answer"):
        traffic.score("cmpl-x", 1.0, 0.0)


def test_a_decision_is_about_its_own_canary(shop):
    shop.start_canary("v1", "production", PLAN, actor="sato")
    shop.end_canary("production", "stop", actor="sato")
    shop.start_canary("v2", "production", PLAN, actor="sato")
    with pytest.raises(WorkspaceError, match="canary 2 now"):
        shop.end_canary("production", "promote", actor=ACTOR, number=1)
    with pytest.raises(WorkspaceError, match="canary 2 now"):
        shop.step_canary("production", 0.6, actor=ACTOR, number=1)
    assert shop.step_canary("production", 0.6, actor=ACTOR, number=2).weight == 0.6


def test_an_emergency_that_is_over_is_taken_back(shop, traffic):
    shop.break_glass("v3", "production", "sato", "nobody is here", timedelta(seconds=0.4))
    routing = routing_of(shop)
    assert routing.choose("production").version.name == "v3"
    time.sleep(0.5)
    Steering(shop, routing, traffic, settings().canary).look()
    assert routing.choose("production").version.name == "v0"
    assert shop.archive.verify().ok
