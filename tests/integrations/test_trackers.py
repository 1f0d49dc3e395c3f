"""Trackers of a training: what they are told, and what is refused before the long work."""

import pytest
from transformers import TrainerCallback
from transformers.integrations import integration_utils

import tuning_tasks
from perdure.errors import SettingError
from perdure.tuning.trackers import check_trackers

QUICK = {"epochs": 1, "batch_size": 4, "rank": 2}


class Recorder(TrainerCallback):
    """In place of a tracker: keeps what it is told."""

    told: list = []  # noqa: RUF012 - the trainer makes its own instance

    def on_log(self, args, state, control, logs=None, **_):
        self.told.append(logs)


@pytest.mark.parametrize("name", ["wandb", "tensorboard"])
def test_a_tracker_is_told_the_losses(measured_shop, monkeypatch, tmp_path, name):
    Recorder.told.clear()
    monkeypatch.setitem(integration_utils.INTEGRATION_TO_CALLBACK, name, Recorder)
    monkeypatch.setattr("perdure.tuning.trackers.find_spec", lambda package: package)
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path))
    [version] = measured_shop.tune(tuning_tasks.UPPER, {**QUICK, "report_to": [name]}, actor="sato")
    assert version.name == "v2"
    assert any("loss" in logs for logs in Recorder.told)


def test_tensorboard_writes_where_it_is_told(measured_shop, monkeypatch, tmp_path):
    pytest.importorskip("tensorboard")
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "logs"))
    measured_shop.tune(tuning_tasks.UPPER, {**QUICK, "report_to": ["tensorboard"]}, actor="sato")
    assert list((tmp_path / "logs").rglob("events*"))


def test_logs_that_would_be_lost_are_refused(measured_shop, monkeypatch):
    monkeypatch.delenv("TENSORBOARD_LOGGING_DIR", raising=False)
    monkeypatch.setattr("perdure.tuning.trackers.find_spec", lambda package: package)
    with pytest.raises(SettingError, match="TENSORBOARD_LOGGING_DIR"):
        measured_shop.tune(tuning_tasks.UPPER, {**QUICK, "report_to": ["tensorboard"]}, actor="sato")
    assert len(measured_shop.archive.versions()) == 2


@pytest.mark.parametrize("name", ["wandb", "tensorboard", "mlflow"])
def test_a_tracker_that_is_not_installed_is_named(monkeypatch, name):
    monkeypatch.setattr("perdure.tuning.trackers.find_spec", lambda package: None)
    with pytest.raises(SettingError, match=f"pip install {name}"):
        check_trackers([name])


def test_without_trackers_nothing_is_asked(monkeypatch):
    monkeypatch.setattr("perdure.tuning.trackers.find_spec", lambda package: pytest.fail("asked"))
    check_trackers(())
