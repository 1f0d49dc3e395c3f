"""The mirror in MLflow: against a stand-in that keeps what it is told, and against MLflow itself where installed."""

import sys
from types import SimpleNamespace

import pytest

from invoking import run_json
from perdure.errors import PerdureError
from perdure.integrations.mlflow_mirror import metrics_of, mirror


class Tracker:
    """What of `MlflowClient` a mirror uses."""

    def __init__(self):
        self.metrics, self.params, self.texts, self.models = {}, {}, {}, {}
        self.numbers, self.aliases, self.runs = [], {}, 0

    def search_registered_models(self, _filter):
        return [SimpleNamespace(name=name) for name in self.models]

    def create_registered_model(self, name, description):
        self.models[name] = description

    def search_model_versions(self, _filter, max_results):
        assert max_results >= 1000
        return list(reversed(self.numbers))

    def get_experiment_by_name(self, name):
        return SimpleNamespace(experiment_id="7") if self.runs else None

    def create_experiment(self, name):
        return "7"

    def create_run(self, place, run_name, tags):
        assert place == "7"
        self.runs += 1
        return SimpleNamespace(info=SimpleNamespace(run_id=f"run{self.runs}"))

    def log_metric(self, run, name, value):
        self.metrics[name] = value

    def log_param(self, run, name, value):
        self.params[name] = value

    def log_text(self, run, text, name):
        self.texts[name] = text

    def set_terminated(self, run):
        pass

    def create_model_version(self, name, source, run_id, tags):
        assert source == f"runs:/{run_id}"
        self.numbers.append(SimpleNamespace(version=str(len(self.numbers) + 1), run_id=run_id, tags=tags))
        return self.numbers[-1]

    def get_registered_model(self, name):
        return SimpleNamespace(aliases=dict(self.aliases))

    def set_registered_model_alias(self, name, alias, number):
        self.aliases[alias] = number

    def delete_registered_model_alias(self, name, alias):
        del self.aliases[alias]


def tell(shop, to, ref="v1"):
    return mirror(shop, shop.version(ref), page="<p>page</p>", actor="sato", client=to)


def test_the_report_stands_there_with_intervals(measured_shop):
    to = Tracker()
    found = tell(measured_shop, to)
    assert (found.number, found.run, found.new) == ("1", "run1", True)
    report = measured_shop.report("v1")
    [kept] = [report.retention.overall]
    for name, value in (("difference", kept.difference.value), ("difference.low", kept.difference.low)):
        assert to.metrics[f"{kept.name}.{name}"] == value
    assert to.metrics["language.ratio.high"] == report.language.ratio_high
    assert to.texts["report.html"] == "<p>page</p>" and '"version":"v1"' in to.texts["report.json"]
    assert to.texts["README.md"].startswith("---\n")
    assert to.params == {"editor": "memit", "restraint": "prune", "kind": "edit"}
    tags = to.numbers[0].tags
    assert tags["perdure.version"] == measured_shop.version("v1").id
    assert tags["perdure.report"] == measured_shop.archive.report_digest(measured_shop.version("v1"))
    assert set(metrics_of(report)) <= set(to.metrics)
    last = measured_shop.archive.log()[-1]
    assert (last.action, last.details["model"], last.details["number"]) == ("mirror", found.model, "1")


def test_the_same_version_is_told_once(measured_shop):
    to = Tracker()
    tell(measured_shop, to)
    again = tell(measured_shop, to)
    assert (again.number, again.new, to.runs) == ("1", False, 1)
    report = {**measured_shop.archive.report(measured_shop.version("v1")), "seconds": {"again": 1.0}}
    measured_shop.archive.put_report(measured_shop.version("v1"), report, actor="kato")
    assert tell(measured_shop, to).number == "2"


def test_aliases_follow_the_workspace(measured_shop):
    to = Tracker()
    tell(measured_shop, to)
    assert to.aliases == {}  # production holds v0, which MLflow does not know
    to.aliases["champion"] = "1"  # set there by hand: nothing here says so
    measured_shop.approve("v1", actor="mori")
    measured_shop.promote("v1", "production", actor="mori")
    assert tell(measured_shop, to).aliases == {"production": "1"}
    assert to.aliases == {"production": "1"}
    measured_shop.rollback("production", actor="mori")
    tell(measured_shop, to)
    assert to.aliases == {}


def test_without_mlflow_the_extra_is_named(measured_shop, monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(PerdureError, match=r"pip install 'perdure\[mlflow\]'"):
        mirror(measured_shop, measured_shop.version("v1"), page="", actor="sato")


def test_mlflow_itself_takes_it(measured_shop, tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    uri = (tmp_path / "mlruns").as_uri()
    measured_shop.promote("v1", "staging", actor="sato")
    found = run_json("mirror", "mlflow", "v1", "--uri", uri, "--model", "tiny", "-w", measured_shop.folder)
    client = mlflow.MlflowClient(tracking_uri=uri, registry_uri=uri)
    there = client.get_model_version_by_alias("tiny", "staging")
    assert there.tags["perdure.version"] == measured_shop.version("v1").id
    run = client.get_run(there.run_id)
    assert run.data.metrics == pytest.approx(metrics_of(measured_shop.report("v1")))
    assert {artifact.path for artifact in client.list_artifacts(there.run_id)} == {
        "README.md", "recipe.json", "report.html", "report.json",
    }  # fmt: skip
    assert found["aliases"] == {"staging": "1"}


def test_what_mlflow_refuses_is_told(measured_shop, tmp_path, monkeypatch):
    pytest.importorskip("mlflow")
    monkeypatch.delenv("MLFLOW_ALLOW_FILE_STORE", raising=False)
    with pytest.raises(PerdureError, match="MLflow refused"):
        mirror(measured_shop, measured_shop.version("v1"), page="", actor="sato", uri=(tmp_path / "runs").as_uri())
