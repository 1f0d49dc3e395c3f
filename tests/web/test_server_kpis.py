"""KPIs in the browser and for programs: entered by form and file, corrected by rows, beside the model's figures."""

import json
import re

import pytest
from browsing import HOST, Browser

from perdure.web.server.kpis import entered, mean, signed
from perdure.web.server.watching import figures_of
from perdure.web.server.words import speaking

HEADER = "name,unit,better,version,period_start,period_end,value,n\n"
FORM = {
    "name": "rework hours", "value": "14.5", "unit": "h", "better": "lower", "version": "v0",
    "period_start": "2026-03-02", "period_end": "2026-03-08", "n": "40",
}  # fmt: skip


def weeks(version, month, *values, name="rework hours"):
    return "".join(
        f"{name},h,lower,{version},2026-{month:02}-{7 * n + 1:02},2026-{month:02}-{7 * n + 7:02},{value},\n"
        for n, value in enumerate(values)
    )


def send(browser, text, name="kpis.csv"):
    return browser.post("/kpis/upload", files={"file": (name, text.encode(), "text/csv")})


def specs(page):
    found = re.findall(r'<script type="application/json" id="([\w-]+)">(.*?)</script>', page, re.S)
    return {key: json.loads(text) for key, text in found}


def test_an_empty_page_says_what_to_do(served):
    page = Browser(served, "asker").get("/kpis").text
    assert "Nothing was entered yet" in page and "Enter the first figure" in page
    assert "<figure" not in page and 'id="rows"' not in page


def test_a_figure_is_entered_by_form_and_corrected_by_a_row(served):
    browser = Browser(served, "checker")
    assert browser.post("/kpis", FORM).status_code == 303
    (row,) = served.shop.kpis()
    assert (row.name, row.value, row.n, row.actor) == ("rework hours", 14.5, 40, "checker")
    form = browser.get(f"/kpis?correct={row.sequence}").text
    assert f'name="corrects" value="{row.sequence}"' in form and 'value="14.5"' in form
    where = browser.post("/kpis", {**FORM, "value": "13", "corrects": str(row.sequence)}).headers["location"]
    (now,) = served.shop.kpis()
    assert (now.value, now.corrects, where) == (13.0, row.sequence, f"/kpis#row-{now.sequence}")
    page = browser.get("/kpis").text
    assert f'id="row-{row.sequence}"' in page and "corrected" in page
    assert served.shop.archive.verify().ok


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"value": "many"}, "Value: "),
        ({"value": "nan"}, "must be a finite number"),
        ({"unit": ""}, "must be printable words"),
        ({"better": "more"}, "Better is: "),
        ({"version": "v99"}, "v99"),
        ({"period_end": "2026-03-01"}, "before the period&#39;s first day"),
        ({"corrects": "1"}, "is no entry of"),
        ({"corrects": "x"}, "corrects: "),
    ],
)
def test_what_cannot_be_entered_is_told_and_what_was_typed_stays(calm, change, says):
    answer = Browser(calm, "asker").post("/kpis", {**FORM, **change})
    assert answer.status_code == 422 and says in answer.text and "Nothing was entered" in answer.text
    assert 'value="rework hours"' in answer.text and 'value="2026-03-02"' in answer.text
    assert calm.shop.kpis() == []


def test_a_file_is_entered_whole_or_not_at_all(served):
    browser = Browser(served, "chief")
    rows = len(served.shop.archive.log(1000))
    bad = HEADER + weeks("v0", 3, "1", "x") + weeks("v77", 3, "2") + "a,h,up,v0,May,2026-01-02,1,0\n"
    answer = send(browser, bad)
    assert answer.status_code == 422
    assert all(f"kpis.csv:{line}: " in answer.text for line in (3, 5)) and answer.text.count("kpis.csv:5: ") == 3
    assert served.shop.kpis() == [] and len(served.shop.archive.log(1000)) == rows
    assert str(served.shop.folder) not in answer.text
    assert send(browser, HEADER + weeks("v0", 3, "1") + weeks("v77", 3, "2")).text.count("kpis.csv:") == 1
    assert send(browser, HEADER + weeks("v0", 3, 1, 2), name="../../x.csv").status_code == 303
    assert [row.value for row in served.shop.kpis()] == [1, 2]
    assert "already" in send(browser, HEADER + weeks("v0", 3, 1)).text
    for name, data in (("kpis.txt", HEADER), ("kpis.csv", ""), ("kpis.csv", "name\n")):
        assert send(browser, data, name=name).status_code == 422
    assert not list((served.shop.folder / "tmp").iterdir())


def test_figures_stand_around_a_promotion_and_beside_the_model(served):
    shop = served.shop
    shop.approve("v1", "agreer")
    shop.promote("v1", "production", actor="runner")
    day = shop.history("production")[-1].since[:10]
    rows = [
        {**FORM, "name": name, "value": value, "version": version, "period_start": start, "period_end": start}
        for name in ("rework", "<b>calls</b>")
        for version, start, value in (
            ("v0", "2026-03-01", 10), ("v0", "2026-03-02", 11), ("v1", day, 2), ("v1", "2099-01-01", 2.5),
        )
    ]  # fmt: skip
    shop.enter_kpis(rows, actor="chief")
    page = Browser(served, "runner").get("/kpis").text
    assert "From v0 to v1; means over periods" in page and "v0 → v1" in page
    assert "10.5" in page and "2.25" in page and "−8.25" in page and 'class="status good"' in page
    assert "no experiment" in page and "<b>calls" not in page
    kept = next(row for row in served.services.watch.measures(shop.policy) if row.name == "kept").rows[0]["value"]
    assert f"{kept:+.1f}".replace("-", "−") in page
    drawn = specs(page)
    assert set(drawn) == {"chart-kpi-0", "chart-kpi-1", "chart-model"}
    newest = drawn["chart-kpi-0"]
    assert newest["description"] == "<b>calls</b>" and [row["value"] for row in newest["data"]["values"]] == [
        10,
        11,
        2,
        2.5,
    ]
    assert newest["layer"][0]["data"]["values"][0]["to"] == "→ v1"
    last = drawn["chart-model"]["data"]["values"][-1]
    assert last["value"] == pytest.approx(kept) and last["low"] <= last["value"] <= last["high"]
    backwards = Browser(served, "asker").get("/kpis?before=v1&after=v0").text
    assert "From v1 to v0" in backwards and "+8.25" in backwards and 'class="status bad"' in backwards
    assert Browser(served, "asker").get("/kpis?before=v9&after=v0").status_code == 404


def test_one_version_alone_is_not_compared(served):
    served.shop.enter_kpis([FORM], actor="asker")
    page = Browser(served, "asker").get("/kpis").text
    assert "So far one version alone has figures" in page and "chart-kpi-0" in page


def test_programs_enter_and_read(served):
    program = served.program("checker", "kpis")
    rows = [{**FORM, "value": 14.5, "n": 40}, {**FORM, "period_start": "2026-03-09", "period_end": "2026-03-15"}]
    made = program.post("/api/v1/kpis", json={"rows": rows})
    assert made.status_code == 201, made.text
    assert [(row["version"], row["value"], row["in_force"]) for row in made.json()] == [("v0", 14.5, True)] * 2
    again = program.post("/api/v1/kpis", json={"rows": rows})
    assert again.status_code == 422 and len(again.json()["problems"]) == 2
    bad = program.post("/api/v1/kpis", json={"rows": [{**FORM, "value": "x"}, {**FORM, "better": "up", "n": 0}]})
    assert bad.status_code == 422 and len(bad.json()["problems"]) == 3
    assert program.get("/api/v1/kpis").status_code == 403
    reader = served.program("checker", "read")
    assert [row["actor"] for row in reader.get("/api/v1/kpis").json()] == ["checker"] * 2
    told = reader.get("/api/v1/kpis/comparison?before=v0&after=v1").json()
    assert told["kpis"] == [] and "retention" in told["model"][1] and "no experiment" in told["note"]
    assert reader.post("/api/v1/kpis", json={"rows": rows}).status_code == 403


def test_another_site_and_somebody_without_a_role_enter_nothing(served):
    browser = Browser(served, "asker")
    assert browser.post("/kpis", FORM, headers={"origin": "https://evil.example"}).status_code == 403
    assert browser.client.post("/kpis", data=FORM, headers={"origin": f"http://{HOST}"}).status_code == 403
    assert Browser(served, "nobody").post("/kpis", FORM).status_code == 403
    assert served.shop.kpis() == []


def test_figures_are_written_as_they_were_entered():
    assert [entered(value) for value in (14.5, -1234.56, 0.0, 1e-9)] == ["14.5", "−1,234.56", "0", "1.00×10⁻⁹"]
    assert (mean(2 / 3), signed(2 / 3), signed(-2 / 3), signed(0.0)) == ("0.6667", "+0.667", "−0.667", "0")
    with speaking("ja"):
        assert entered(1234.5) == "1,234.5"


def test_figures_are_kept_under_the_report_that_they_are_of(served):
    watch, archive = served.services.watch, served.shop.archive
    v1 = archive.version("v1")
    first = archive.report(v1)
    watch._catch_up()
    archive.put_report(v1, {**first, "retention": None, "language": None, "matrices": []}, actor="asker")  # meanwhile
    assert watch._point(v1.id) == figures_of(first) != {}
    assert watch.figures(v1) == {}
