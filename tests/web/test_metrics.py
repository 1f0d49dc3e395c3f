"""The metrics: every name of the design, bounded labels, figures of the workspace; and who may read them."""

import re
import shutil
import sqlite3
from datetime import timedelta

import pytest
import report_sample
from browsing import Browser, commit_change, put_report
from prometheus_client.parser import text_string_to_metric_families

from perdure import Workspace
from perdure.governance.drift import Finding
from perdure.workspace.database import FILE_NAME
from perdure.workspace.metrics import Metrics, render_metrics

NAMES = """version_info, edits_applied_total{method}, edits_since_base{layer}, edited_weight_norm_ratio{layer},
edited_condition_number_ratio{layer}, update_relative_norm{layer}, forgetting_score{suite,against},
edit_success_ratio, edit_locality_ratio, edit_generalisation_ratio, past_edit_retention_ratio,
gate_decisions_total{gate,result}, approval_wait_seconds, rollback_seconds, rollback_verified_total{ok}, store_bytes,
store_free_bytes, fsck_last_success_timestamp_seconds, audit_chain_ok, break_glass_total,
update_compute_flops_total"""


def read(text):
    """From a family's name to its samples: (labels, value)."""
    families = {family.name: family for family in text_string_to_metric_families(text)}
    return {name: [(s.name, s.labels, s.value) for s in family.samples] for name, family in families.items()}


@pytest.fixture
def shop(bare_shop, tmp_path):
    return Workspace.open(shutil.copytree(bare_shop, tmp_path / "shop"))


@pytest.fixture
def busy(shop):
    """v1 approved, promoted, rolled back and promoted again; v2 beside it; the glass was broken once."""
    full = report_sample.full_report()
    unchanged = full.edits.comparisons[0].model_copy(update={"name": "edits.neighbour.unchanged"})
    edits = full.edits.model_copy(update={"comparisons": (*full.edits.comparisons, unchanged)})
    put_report(shop, shop.version("v1"), full.model_copy(update={"edits": edits}))
    shop.approve("v1", "agreer")
    shop.promote("v1", "production", actor="runner")
    shop.rollback("production", actor="runner")
    shop.promote("v1", "production", actor="runner")
    put_report(shop, commit_change(shop, requester="asker", note="second"))
    shop.break_glass("v2", "staging", "runner", "outage", timedelta(hours=1))
    found = [Finding(measure="old edits", subject="a", value=0.5, low=0, high=1, n=4, limit=0.9)]
    found.append(Finding(measure="old edits", subject="b", value=1.0, low=0, high=1, n=12, limit=0.9))
    v1 = shop.version("v1")
    shop.archive.put_observation(v1, "production", found, actor="runner", policy="p")
    shop.archive.note_verified()
    return shop


def test_every_name_of_the_design_is_there(busy):
    found = read(render_metrics(busy))
    for name, labels in re.findall(r"(\w+)(?:\{([\w,]+)\})?", NAMES):
        samples = found[f"perdure_{name.removesuffix('_total')}"]
        assert samples, name
        wanted = set(labels.split(",")) - {""}
        assert all(wanted <= set(one) for _, one, _ in samples), name


def test_the_figures(busy):
    found = read(render_metrics(busy))
    info = {labels["alias"]: labels["version"] for _, labels, _ in found["perdure_version_info"]}
    assert info == {"production": "v1", "staging": "v2"}
    assert found["perdure_edits_applied"] == [("perdure_edits_applied_total", {"method": "memit"}, 2.0)]
    since = {labels["alias"]: (labels["layer"], value) for _, labels, value in found["perdure_edits_since_base"]}
    assert since == {"production": ("1", 1.0), "staging": ("1", 2.0)}
    report = busy.report("v1")
    worst = max(report.matrices, key=lambda row: row.relative_norm)
    norms = [value for _, labels, value in found["perdure_edited_weight_norm_ratio"] if labels["alias"] == "production"]
    assert max(norms) == pytest.approx(worst.relative_norm)
    lost = {(l["alias"], l["suite"], l["against"]): value for _, l, value in found["perdure_forgetting_score"]}
    assert lost["production", "overall", "parent"] == pytest.approx(-report.retention.overall.difference.value)
    assert found["perdure_past_edit_retention_ratio"][0][2] == pytest.approx((0.5 * 4 + 12) / 16)
    assert [value for name, _, value in found["perdure_approval_wait_seconds"] if name.endswith("_count")] == [1.0]
    assert [value for name, _, value in found["perdure_rollback_seconds"] if name.endswith("_count")] == [1.0]
    assert {labels["ok"]: value for _, labels, value in found["perdure_rollback_verified"]} == {"true": 1, "false": 0}
    assert [value for _, _, value in found["perdure_break_glass"]] == [1.0]
    assert [value for _, _, value in found["perdure_audit_chain_ok"]] == [1.0]
    decided = sum(value for _, _, value in found["perdure_gate_decisions"])
    assert decided == len(report.verdicts) * 3


def test_nothing_is_read_twice_and_what_is_new_is_seen(busy, monkeypatch):
    metrics = Metrics(busy)
    metrics.text()
    monkeypatch.setattr("perdure.workspace.metrics.step_of", None)
    monkeypatch.setattr(type(busy.archive), "stored_report", None)
    busy.rollback("production", actor="runner")
    info = {labels["alias"]: labels["version"] for _, labels, _ in read(metrics.text())["perdure_version_info"]}
    assert info["production"] == "v0"


def test_a_changed_ledger_shows(busy):
    connection = sqlite3.connect(busy.folder / FILE_NAME)
    connection.execute("DROP TRIGGER ledger_no_update")
    connection.execute("UPDATE ledger SET actor = 'hara' WHERE sequence = 1")
    connection.commit()
    connection.close()
    history = Metrics(busy)._history
    history.catch_up(busy)
    assert history.sound is False


def test_no_model_is_loaded(busy, monkeypatch):
    monkeypatch.setattr(type(busy), "load", None)
    assert "perdure_store_bytes" in render_metrics(busy)


def test_who_may_read_them(served):
    answer = served.program("runner", "metrics").get("/metrics")
    assert answer.status_code == 200 and answer.headers["content-type"].startswith("text/plain")
    assert "perdure_version_info" in answer.text
    assert Browser(served, "checker").get("/metrics").status_code == 200
    assert Browser(served, "asker").get("/metrics").status_code == 403
    assert served.program("runner", "read").get("/metrics").status_code == 403
