"""KPIs in CSV files: every bad row at once, nothing guessed."""

import pytest

from perdure.errors import RequestError, SettingError
from perdure.requests.kpis import checked_kpi, checked_kpis, read_kpis

HEADER = "name,unit,better,version,period_start,period_end,value,n\n"


def write(path, *rows, header=HEADER):
    path.write_text(header + "".join(row + "\n" for row in rows))
    return path


def test_rows_with_and_without_a_count(tmp_path):
    file = write(tmp_path / "k.csv", "rework,h,lower,v1,2026-03-01,2026-03-31,7.5,40",
                 " re  work , h ,lower,v1,2026-03-01,2026-03-31,-1e2,")  # fmt: skip
    (place, first), (_, second) = read_kpis(file)
    assert str(place) == "k.csv:2" and (first.value, first.n, first.version) == (7.5, 40, "v1")
    assert (second.name, second.unit, second.value, second.n) == ("re work", "h", -100.0, None)


def test_every_bad_row_is_told(tmp_path):
    file = write(
        tmp_path / "k.csv",
        "rework,h,less,v1,2026-03-01,2026-03-31,7.5,40",
        "rework,h,lower,v1,2026-03-31,2026-03-01,nan,0",
        "rework,h,lower,v1,2026-03-01",
        ",h,lower,,March,2026-03-31,many,",
    )
    with pytest.raises(RequestError, match="Nothing was entered") as found:
        read_kpis(file)
    fields = [(problem.place.number, problem.field) for problem in found.value.problems]
    assert fields == [
        (2, "better"),
        (3, "period_end"), (3, "value"), (3, "n"),
        (4, ""),
        (5, "name"), (5, "version"), (5, "period_start"), (5, "value"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("header", "words"),
    [("name,unit\n", "lacks better"), ("name,colour\n", "unknown column 'colour'"), (HEADER, "holds no KPI")],
)
def test_a_header_that_cannot_be_read(tmp_path, header, words):
    with pytest.raises(RequestError, match=words):
        read_kpis(write(tmp_path / "k.csv", header=header))


def test_other_files_are_refused(tmp_path):
    with pytest.raises(RequestError, match="unknown extension"):
        read_kpis(write(tmp_path / "k.xlsx"))


def test_one_entry_names_all_its_faults():
    with pytest.raises(SettingError, match=r"unit: .*better: .*version: .*value: "):
        checked_kpi({"name": "a", "unit": "", "better": "up", "period_start": "2026-01-01", "period_end": "2026-01-02"})


def test_rows_in_memory_are_checked_alike():
    row = {"name": "rework", "unit": "h", "better": "lower", "version": "v1", "value": "7.5"}
    row |= {"period_start": "2026-03-01", "period_end": "2026-03-31"}
    ((place, entry),) = checked_kpis([row])
    assert (str(place), entry.value) == ("KPIs[0]", 7.5)
    with pytest.raises(RequestError) as found:
        checked_kpis([{**row, "n": 0}, row, {**row, "value": "inf", "odd": 1}])
    assert [(one.place.number, one.field) for one in found.value.problems] == [(0, "n"), (2, "value"), (2, "odd")]
