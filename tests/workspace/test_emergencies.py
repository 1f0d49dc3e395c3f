"""Breaking the glass: loud, for a limited time, reviewed by somebody else, and taken back when its time is over."""

from datetime import UTC, datetime, timedelta

import pytest

from perdure.errors import RefusedError, SettingError, WorkspaceError
from perdure.workspace import emergencies

DAY = timedelta(days=1)


def break_glass(archive, tiny, version="v2", alias="production", **more):
    options = {"actor": "mori", "reason": "wrong prices", "expires": DAY, "policy": tiny.policy, **more}
    return archive.break_glass(archive.version(version), alias, **options)


def test_a_broken_glass_is_told_and_reviewed_by_another(archive, tiny):
    broken = break_glass(archive, tiny)
    assert archive.aliases()["production"].name == "v2"
    assert [entry.action for entry in archive.log(2)] == ["emergency", "break glass"]
    (open_one,) = archive.emergencies()
    assert open_one == broken and open_one.reviewer == "" and open_one.reason == "wrong prices"
    for name in ("mori", "Mori"):
        with pytest.raises(RefusedError, match="broke the glass and cannot review it"):
            archive.review(broken.sequence, actor=name, comment="fine")
    with pytest.raises(SettingError, match="needs words"):
        archive.review(broken.sequence, actor="kato", comment=" ")
    with pytest.raises(SettingError, match="no emergency has the number 1"):
        archive.review(1, actor="kato", comment="fine")
    archive.review(broken.sequence, actor="kato", comment="right so")
    (closed,) = archive.emergencies()
    assert (closed.reviewer, closed.review) == ("kato", "right so")
    with pytest.raises(RefusedError, match="reviewed by kato already"):
        archive.review(broken.sequence, actor="sato", comment="again")
    assert archive.verify().ok


@pytest.mark.parametrize(
    ("expires", "words"),
    [(timedelta(0), "within 7 days"), (-DAY, "within 7 days"), (8 * DAY, "within 7 days"),
     (datetime(2031, 1, 1), "time with its zone"), (datetime(2001, 1, 1, tzinfo=UTC), "within 7 days")],
)  # fmt: skip
def test_it_ends_within_a_week(archive, tiny, expires, words):
    with pytest.raises(SettingError, match=words):
        break_glass(archive, tiny, expires=expires)
    assert archive.aliases()["production"].name == "v0"


def test_it_needs_a_reason_and_a_person_and_something_to_change(archive, tiny):
    with pytest.raises(SettingError, match="needs its reason"):
        break_glass(archive, tiny, reason=" ")
    with pytest.raises(RefusedError, match="is a program and cannot break the glass"):
        break_glass(archive, tiny, actor="machine:pager")
    with pytest.raises(WorkspaceError, match="holds v0 already"):
        break_glass(archive, tiny, version="v0")
    assert archive.emergencies() == []


def later(monkeypatch, days):
    """Let that many days pass."""
    real = datetime

    class Moved(datetime):
        @classmethod
        def now(cls, tz=None):
            return real.now(tz) + timedelta(days=days)

    monkeypatch.setattr("perdure.workspace.releasing.datetime", Moved)


def test_what_was_not_approved_in_time_is_taken_back(archive, tiny, monkeypatch):
    broken = break_glass(archive, tiny)
    archive.review(broken.sequence, actor="kato", comment="seen, and not approved")
    options = {"actor": "perdure", "policy": tiny.policy, "required": lambda alias: 1}
    assert archive.end_expired(**options) == []
    later(monkeypatch, 2)
    assert [version.name for version in archive.end_expired(**options)] == ["v0"]
    assert archive.aliases()["production"].name == "v0"
    assert archive.end_expired(**options) == []
    assert archive.alias_history("production")[-1].actor == "perdure"
    assert archive.verify().ok


def test_what_was_approved_in_time_stays(archive, tiny, monkeypatch):
    break_glass(archive, tiny)
    v2 = archive.version("v2")
    archive.approve(v2, report=archive.report_digest(v2), policy=tiny.policy, actor="kato")
    later(monkeypatch, 2)
    assert archive.end_expired(actor="perdure", policy=tiny.policy, required=lambda alias: 1) == []
    assert archive.aliases()["production"] == v2


def test_nothing_rolls_back_to_what_only_broke_the_glass(archive, tiny):
    v1 = archive.version("v1")
    break_glass(archive, tiny)
    archive.promote(v1, "production", actor="mori", policy=tiny.policy, expected="any")
    assert archive.rollback("production", actor="mori").name == "v0"
    kinds = [(time.kind, time.approvers) for time in archive.served("production")]
    assert kinds == [("promote", ()), ("break glass", ()), ("promote", ("kato",)), ("rollback", ())]


def test_a_rollback_leaves_the_emergency_open_for_review(archive, tiny):
    break_glass(archive, tiny)
    assert archive.rollback("production", actor="mori").name == "v0"
    assert [one.reviewer for one in archive.emergencies()] == [""]


def test_expiry_is_written_in_utc():
    now = datetime(2030, 5, 1, tzinfo=UTC)
    tokyo = datetime.fromisoformat("2030-05-01T10:00:00+09:00")
    assert emergencies.checked_expiry(tokyo, now) == "2030-05-01T01:00:00.000000+00:00"


def test_one_that_cannot_be_taken_back_does_not_keep_the_others(archive, tiny, monkeypatch):
    break_glass(archive, tiny, alias="shadow")  # which held nothing before
    break_glass(archive, tiny)
    later(monkeypatch, 2)
    ended = archive.end_expired(actor="perdure", policy=tiny.policy, required=lambda alias: 1)
    assert [version.name for version in ended] == ["v0"]
    held = {alias: version.name for alias, version in archive.aliases().items()}
    assert held == {"production": "v0", "shadow": "v2", "staging": "v1"}


def test_the_base_needs_nobody_and_stays(archive, tiny, monkeypatch):
    v0, v1 = archive.version("v0"), archive.version("v1")
    archive.promote(v1, "production", actor="mori", policy=tiny.policy, expected=v0)
    break_glass(archive, tiny, version="v0")
    later(monkeypatch, 2)
    assert archive.end_expired(actor="perdure", policy=tiny.policy, required=lambda alias: 1) == []
    assert archive.aliases()["production"] == v0


def test_what_was_approved_since_stays_when_the_policy_changes_later(archive, tiny, monkeypatch):
    break_glass(archive, tiny)
    v2 = archive.version("v2")
    archive.approve(v2, report=archive.report_digest(v2), policy=tiny.policy, actor="kato")
    later(monkeypatch, 2)
    options = {"actor": "perdure", "policy": "a later policy", "required": lambda alias: 1}
    assert archive.end_expired(**options) == []
    assert archive.end_expired(**{**options, "required": lambda alias: 2})[0].name == "v0"


def test_a_rejection_since_takes_it_back(archive, tiny, monkeypatch):
    break_glass(archive, tiny)
    v2 = archive.version("v2")
    archive.approve(v2, report=archive.report_digest(v2), policy=tiny.policy, actor="kato")
    archive.reject(v2, actor="kato", reason="after all")
    later(monkeypatch, 2)
    options = {"actor": "perdure", "policy": tiny.policy, "required": lambda alias: 1}
    assert [version.name for version in archive.end_expired(**options)] == ["v0"]


def test_a_promotion_confirms_what_broke_the_glass(archive, tiny):
    v0, v2 = archive.version("v0"), archive.version("v2")
    break_glass(archive, tiny)
    promoted = {"actor": "mori", "policy": tiny.policy, "expected": "any"}
    with pytest.raises(RefusedError, match="no valid approval"):
        archive.promote(v2, "production", **promoted)
    archive.approve(v2, report=archive.report_digest(v2), policy=tiny.policy, actor="kato")
    archive.promote(v2, "production", **promoted)
    assert [move.kind for move in archive.alias_history("production")] == ["promote", "break glass", "promote"]
    archive.promote(v2, "production", **promoted)
    assert len(archive.alias_history("production")) == 3
    assert archive.rollback("production", actor="mori") == v0
    assert archive.verify().ok
