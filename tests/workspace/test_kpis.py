"""KPIs in the workspace: rows that stay, corrections that are rows, and nothing that contradicts itself."""

import sqlite3
import time
from datetime import date, timedelta

import pytest

from perdure.errors import RefusedError, RequestError
from perdure.workspace.archive import Archive
from perdure.workspace.database import FILE_NAME

APRIL = {"period_start": "2026-04-01", "period_end": "2026-04-30"}


@pytest.fixture
def v0(archive):
    return archive.version("v0")


def test_what_is_entered_stays_with_who_and_when(archive, v0, tiny):
    (row,) = archive.enter_kpis([tiny.kpi(v0, n=40)], actor="kato")
    assert archive.kpis() == [row]
    assert (row.name, row.unit, row.better, row.value, row.n) == ("rework", "h", "lower", 7.0, 40)
    assert (row.version, row.period_start, row.period_end, row.actor) == (v0.id, "2026-03-01", "2026-03-31", "kato")
    assert row.time and row.in_force and row.corrects is None
    entry = archive.log(1)[0]
    assert (entry.sequence, entry.action, entry.details["value"]) == (row.sequence, "kpi", 7.0)
    assert archive.verify().ok


def test_a_correction_is_a_new_row_and_may_be_corrected_in_its_turn(archive, v0, tiny):
    (first,) = archive.enter_kpis([tiny.kpi(v0)], actor="kato")
    (second,) = archive.enter_kpis([tiny.kpi(v0, value=8, corrects=first.sequence)], actor="sato")
    assert archive.kpis() == [second]
    assert [row.in_force for row in archive.kpis(corrected=True)] == [False, True]
    with pytest.raises(RequestError, match="was corrected already"):
        archive.enter_kpis([tiny.kpi(v0, value=9, corrects=first.sequence)], actor="kato")
    archive.enter_kpis([tiny.kpi(v0, value=9, unit="min", corrects=second.sequence)], actor="kato")
    assert [(row.value, row.unit) for row in archive.kpis()] == [(9.0, "min")]
    assert archive.verify().ok


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({}, "has 2026-03-01 to 2026-03-31 already"),
        ({"period_start": "2026-03-31", "period_end": "2026-04-02"}, "already"),
        ({**APRIL, "unit": "min"}, "is in h and better lower since row"),
        ({**APRIL, "better": "higher"}, "is in h and better lower since row"),
        ({"corrects": 1}, "is no entry of 'rework'"),
    ],
)
def test_what_contradicts_an_earlier_row_is_refused(archive, v0, tiny, change, reason):
    archive.enter_kpis([tiny.kpi(v0)], actor="kato")
    rows = len(archive.log())
    with pytest.raises(RequestError, match=reason):
        archive.enter_kpis([tiny.kpi(v0, **change)], actor="kato")
    assert len(archive.log()) == rows


def test_all_are_entered_or_none_and_every_reason_is_told(archive, v0, tiny):
    rows = len(archive.log())
    asked = [tiny.kpi(v0), tiny.kpi(v0), tiny.kpi(v0, **APRIL, unit="min"), tiny.kpi(v0, **APRIL)]
    with pytest.raises(RequestError) as found:
        archive.enter_kpis(asked, actor="kato")
    assert len(found.value.problems) == 2
    assert (archive.kpis(), len(archive.log())) == ([], rows)
    archive.enter_kpis([asked[0], asked[3], tiny.kpi(archive.version("v1"))], actor="kato")
    assert len(archive.kpis()) == 3


def test_the_database_corrects_once(full_shop):
    with Archive.open(full_shop) as archive:
        (row,) = archive.kpis()
    connection = sqlite3.connect(full_shop / FILE_NAME)
    last = connection.execute("SELECT MAX(sequence) FROM ledger").fetchone()[0]
    values = (last + 1, "other", "h", "lower", row.version, "2026-05-01", "2026-05-02", 1.0, None, row.sequence)
    with pytest.raises(sqlite3.IntegrityError, match="corrected once"):
        connection.execute("INSERT INTO kpis VALUES (?,?,?,?,?,?,?,?,?,?)", values)
    connection.close()


def test_a_figure_changed_by_sql_is_found(full_shop):
    connection = sqlite3.connect(full_shop / FILE_NAME)
    connection.execute("DROP TRIGGER kpis_no_update")
    connection.execute("UPDATE kpis SET value = 1")
    connection.commit()
    connection.close()
    with Archive.open(full_shop) as archive:
        assert any("kpis is not what the ledger says" in problem for problem in archive.verify().problems)


def test_members_enter_and_strangers_do_not(full_shop, tiny):
    with Archive.open(full_shop) as archive:
        v0 = archive.version("v0")
        archive.enter_kpis([tiny.kpi(v0, **APRIL)], actor="kato")
        with pytest.raises(RefusedError, match="cannot enter a KPI"):
            archive.enter_kpis([tiny.kpi(v0, name="calls", **APRIL)], actor="hara")


def test_observations_keep_their_findings(full_shop, tiny):
    with Archive.open(full_shop) as archive:
        (seen,) = archive.observations("production")
        assert archive.observations("staging") == [] and archive.observations() == [seen]
        assert (seen.alias, seen.version, seen.policy, seen.actor) == (
            "production", archive.version("v0").id, tiny.policy, "mori",
        )  # fmt: skip
        assert (seen.findings[0].subject, seen.alerts) == ("all", ())
        with pytest.raises(RefusedError, match="cannot run the monitor"):
            archive.put_observation(archive.version("v0"), "production", [], actor="kato", policy="p")
        archive.put_observation(archive.version("v0"), "production", [], actor="perdure", policy="p")
        assert archive.verify().ok


def test_a_long_file_does_not_keep_other_writers_waiting(archive, v0, tiny):
    def seconds(name, count):
        days = [str(date(1990, 1, 1) + timedelta(days=n)) for n in range(count)]
        placed = [tiny.kpi(v0, name=name, period_start=day, period_end=day) for day in days]
        began = time.process_time()
        assert len(archive.enter_kpis(placed, actor="kato")) == count
        return time.process_time() - began

    assert seconds("calls", 4800) < 10 * seconds("rework", 1200)  # 16 times as long if each row were searched for
    with pytest.raises(RequestError, match="has 1993-04-13 to 1993-04-13 already"):
        archive.enter_kpis([tiny.kpi(v0, period_start="1993-04-13", period_end="1999-01-01")], actor="kato")
