"""Canaries in the workspace: one at a time, between two immutable versions, in steps that stay written."""

import pytest

from perdure.errors import RefusedError, SettingError, WorkspaceError
from perdure.governance import CanaryPlan

PLAN = CanaryPlan(weights=(0.1, 0.5), hold_requests=10)


@pytest.fixture
def canary(archive, tiny):
    """v1 (approved) beside v0 on production."""
    archive.start_canary(archive.version("v1"), "production", PLAN, actor="mori", policy=tiny.policy)
    return archive


def test_a_canary_runs_from_start_to_promotion(canary, tiny):
    v0, v1, _ = canary.versions()
    canary.step_canary("production", 0.5, actor="mori", reason="held")
    assert canary.aliases()["production"] == v0
    ended = canary.end_canary("production", "promote", actor="mori", reason="fine", policy=tiny.policy)
    assert canary.aliases()["production"] == v1
    assert [(step.event, step.weight, step.reason) for step in ended.steps] == [
        ("start", 0.1, ""), ("step", 0.5, "held"), ("promote", 1.0, "fine"),
    ]  # fmt: skip
    assert (ended.number, ended.stable, ended.candidate, ended.plan, ended.running) == (1, v0.id, v1.id, PLAN, False)
    assert canary.alias_history("production")[-1].kind == "promote"
    assert canary.canaries("staging") == [] and len(canary.canaries()) == 1
    assert canary.verify().ok


def test_falling_back_changes_no_alias(canary):
    before = canary.alias_history("production")
    canary.end_canary("production", "fall back", actor="mori", reason="slow")
    assert canary.alias_history("production") == before
    with pytest.raises(WorkspaceError, match="no canary that runs"):
        canary.step_canary("production", 0.5, actor="mori")


def test_one_at_a_time_and_no_other_moves(canary, tiny):
    v0, v1, _ = canary.versions()
    with pytest.raises(WorkspaceError, match="has canary 1 already"):
        canary.start_canary(v1, "production", PLAN, actor="mori", policy=tiny.policy)
    with pytest.raises(WorkspaceError, match="has canary 1 at 10%; end it first"):
        canary.promote(v1, "production", actor="mori", policy=tiny.policy, expected=v0)
    canary.start_canary(v0, "staging", PLAN, actor="mori", policy=tiny.policy)
    assert [one.number for one in canary.canaries() if one.running] == [1, 2]


def test_a_candidate_needs_consent_at_the_start_and_at_the_end(archive, tiny):
    v1, v2 = archive.version("v1"), archive.version("v2")
    with pytest.raises(RefusedError, match="v2 has no valid approval"):
        archive.start_canary(v2, "production", PLAN, actor="mori", policy=tiny.policy)
    archive.start_canary(v1, "production", PLAN, actor="mori", policy=tiny.policy)
    archive.put_report(v1, {"retention": 0.1}, actor="mori")
    with pytest.raises(RefusedError, match="the report changed"):
        archive.end_canary("production", "promote", actor="mori", policy=tiny.policy)
    assert archive.canaries()[0].running


@pytest.mark.parametrize("alias", ["canary-less", "production"])
def test_two_versions_are_needed(archive, tiny, alias):
    with pytest.raises(WorkspaceError, match="a canary needs two versions"):
        archive.start_canary(archive.version("v0"), alias, PLAN, actor="mori", policy=tiny.policy)


@pytest.mark.parametrize("weight", [0, 1, -0.1, 1.5, float("nan")])
def test_shares_lie_between_0_and_1(canary, weight):
    with pytest.raises(SettingError, match="between 0 and 1"):
        canary.step_canary("production", weight, actor="mori")


def test_ends_have_names(canary):
    with pytest.raises(SettingError, match="ends with promote, fall back, stop; given 'abort'"):
        canary.end_canary("production", "abort", actor="mori")


def test_a_rejected_candidate_falls_back(canary):
    canary.reject(canary.version("v1"), actor="kato", reason="wrong law")
    assert canary.canaries()[0].steps[-1].event == "fall back"


def test_a_rollback_and_a_broken_glass_stop_it(canary, tiny):
    from datetime import timedelta

    day = timedelta(days=1)
    v2 = canary.version("v2")
    canary.break_glass(v2, "production", actor="mori", reason="outage", expires=day, policy=tiny.policy)
    assert (canary.canaries()[0].steps[-1].event, canary.aliases()["production"]) == ("stop", v2)
    canary.start_canary(canary.version("v1"), "production", PLAN, actor="mori", policy=tiny.policy)
    canary.rollback("production", actor="mori")
    assert (canary.canaries()[1].steps[-1].event, canary.aliases()["production"].name) == ("stop", "v0")
    assert canary.verify().ok


def test_the_rules_stand_in_the_database(canary, tiny):
    import json
    import sqlite3

    from perdure.workspace.ledger import append

    v0, v1, v2 = (version.id for version in canary.versions())
    plan = json.dumps(PLAN.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
    good = {"canary": 1, "alias": "production", "event": "step", "stable": v0, "candidate": v1, "weight": 0.5,
            "plan": plan, "reason": ""}  # fmt: skip
    for change, words in (
        ({"event": "start", "canary": 2}, "one at a time"),
        ({"event": "start", "alias": "staging", "canary": 7}, "one at a time"),
        ({"canary": 2}, "belongs to a canary that runs"),
        ({"candidate": v2}, "belongs to a canary that runs"),
        ({"stable": v1}, r"CHECK|belongs"),
        ({"alias": "staging"}, "belongs to a canary that runs"),
        ({"plan": "{}"}, "belongs to a canary that runs"),
        ({"weight": 1.0}, "CHECK"),
        ({"event": "promote"}, "CHECK"),
        ({"event": "pause"}, "CHECK"),
    ):
        row = {**good, **change}
        with pytest.raises(sqlite3.IntegrityError, match=words), canary._database.transaction() as connection:
            sequence = append(connection, "canary", row, "mori")
            connection.execute("INSERT INTO canaries VALUES (?,?,?,?,?,?,?,?,?)", (sequence, *row.values()))
    move = {"alias": "production", "version": v1, "previous": v0, "kind": "rollback", "policy": None}
    with pytest.raises(sqlite3.IntegrityError, match="end the canary"), canary._database.transaction() as connection:
        sequence = append(connection, "rollback", move, "mori")
        connection.execute("INSERT INTO alias_moves VALUES (?,?,?,?,?,?)", (sequence, *move.values()))
    assert canary.verify().ok
