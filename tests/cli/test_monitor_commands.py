"""perdure kpi, monitor and metrics, as a user calls them."""

import pytest

from invoking import run, run_json, run_text
from perdure.cli.monitor import seconds_of
from perdure.errors import RequestError, SettingError, WorkspaceError
from shops import LAX, QUICK_OPTIONS, write_facts

HEADER = "name,unit,better,version,period_start,period_end,value,n\n"


@pytest.fixture
def place(tmp_path, tiny_folder, quick_suite, monkeypatch):
    run("init", tmp_path / "shop", "--model", tiny_folder, "--as", "sato")
    (tmp_path / "shop" / "policy.toml").write_text(LAX)
    monkeypatch.chdir(tmp_path / "shop")
    return tmp_path


def weeks(version, month, *values):
    return "".join(
        f"rework,h,lower,{version},2026-{month:02}-{7 * n + 1:02},2026-{month:02}-{7 * n + 7:02},{value},\n"
        for n, value in enumerate(values)
    )


def test_kpis_from_a_file_and_by_hand(place):
    run("edit", write_facts(place / "facts.jsonl"), *QUICK_OPTIONS, "--as", "kato")
    (place / "k.csv").write_text(
        HEADER + weeks("v0", 3, 10, 10.2) + weeks("production", 4, 10.1) + weeks("v1", 5, 1, 2)
    )
    assert len(run_json("kpi", "import", place / "k.csv", "--as", "mori")) == 5
    period = ("--from", "2026-06-01", "--to", "2026-06-07", "--unit", "%", "--better", "higher")
    row = run_json("kpi", "add", "right", "90", "--version", "v0", "--n", "40", *period)
    told = run_text("kpi", "add", "right", "95", "--version", "v0", "--corrects", row["sequence"], *period)
    assert "right of v0 is 95 %" in told
    listed = run_json("kpi", "list")
    assert len(listed) == 6 and listed[-1]["value"] == 95.0 and listed[0]["actor"] == "mori"
    assert sum(not one["in_force"] for one in run_json("kpi", "list", "--all")) == 1
    assert "corrected" in run_text("kpi", "list", "--all")
    found = run_json("kpi", "compare", "v0", "v1")
    assert [(kpi["name"], kpi["says"], kpi["contrast"]["periods"]) for kpi in found["kpis"]] == [
        ("rework", "better", [3, 2])
    ]
    assert set(found["model"][1]) >= {"retention", "perplexity", "norm"}
    text = run_text("kpi", "compare", "v0", "v1")
    assert "no experiment" in text and "not measured" in text and "better" in text
    assert run_json("verify")["ok"]


def test_every_bad_row_of_a_file_is_told_and_nothing_entered(place):
    (place / "k.csv").write_text(HEADER + weeks("v0", 3, 1) + weeks("v7", 3, 2) + weeks("v8", 3, 2))
    assert "2 problems" in run_text("kpi", "import", place / "k.csv", error=RequestError)
    (place / "k.csv").write_text(HEADER + weeks("v0", 3, 1, "x") + "rework,h,up,v0,a,b,1,-1\n")
    assert "5 problems" in run_text("kpi", "import", place / "k.csv", error=RequestError)
    assert run_json("kpi", "list") == []


def test_the_monitor_asks_again_and_tells_drift(place, monkeypatch):
    run("edit", write_facts(place / "facts.jsonl"), *QUICK_OPTIONS, "--as", "kato")
    run("promote", "v1", "staging")
    assert "never asked again" in run_text("monitor", "status", "--alias", "staging")
    seen = run_json("monitor", "run", "--alias", "staging")
    assert (seen["version"], seen["actor"], seen["alerts"]) == ("v1", "perdure", 0)
    kinds = {(one["measure"], one["against"]) for one in seen["findings"]}
    assert kinds >= {("retention", "when first measured"), ("retention", "the base"), ("perplexity", "the base"),
                     ("old edits", "")}  # fmt: skip
    same = [
        one for one in seen["findings"] if one["against"] == "when first measured" and one["measure"] == "retention"
    ]
    assert all(one["value"] == 0 for one in same)
    assert sum(one["n"] for one in seen["findings"] if one["measure"] == "old edits") == 3
    (place / "shop" / "policy.toml").write_text(LAX.replace("perplexity_ratio=1000", "perplexity_ratio=1.5"))
    monkeypatch.setattr("perdure.workspace.monitoring.measure_language", spoiled)
    result = run_fails("monitor", "run", "--alias", "staging")
    assert "beyond the limits" in result.stdout and "ALERT" in result.stdout
    assert "asked 2 times" in run_fails("monitor", "status", "--alias", "staging").stdout
    assert "perdure_past_edit_retention_ratio" in run_text("metrics")
    assert run_json("verify")["ok"]


def spoiled(model, tokenizer, suite, progress):
    """What a machine would give that computes wrongly: perplexities of a tiny model, squared."""
    from perdure.measuring import measure_language

    return tuple(passage.model_copy(update={"nll": 2 * passage.nll}) for passage in
                 measure_language(model, tokenizer, suite, progress))  # fmt: skip


def run_fails(*words):
    from typer.testing import CliRunner

    from perdure.cli.app import app

    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 1, result.output
    return result


def test_what_cannot_be_asked(place):
    run("monitor", "run", "--alias", "nobody", error=WorkspaceError)
    for text in ("6", "0h", "h", "-1h", "1w"):
        with pytest.raises(SettingError, match="such as 6h"):
            seconds_of(text)
    assert seconds_of("90m") == 5400
