"""A training that was interrupted goes on to the very same weights."""

import shutil

import pytest
import torch
from safetensors.torch import load_file

import tiny
import tuning_tasks
from perdure.tuning.config import TuningConfig
from perdure.tuning.regularizer import Surroundings
from perdure.tuning.run import tune

COMMON = dict(batch_size=2, epochs=2, learning_rate=1e-2, rank=2, alpha=4, dropout=0.1, save_every=3)
HEADS = {"kind": "function_vector", "heads": [[0, 1], [1, 2]], "shots": 2, "prompts": 2}
FORMS = {
    "plain": {},
    "full": {"method": "full"},
    "linear": {"schedule": "linear", "warmup": 1},
    "fixed": {"averaging": {"form": "fixed", "decay": 0.7}},
    "fixed, full": {"method": "full", "averaging": {"form": "fixed", "decay": 0.7}},
    "published": {"averaging": {"form": "published"}},
    "sound": {"averaging": {"form": "sound"}},
    "held": {"regularizers": (HEADS, {"kind": "feature_distance"}, {"kind": "distillation"}, {"kind": "l2sp"})},
    "anchors": {"regularizers": ({"kind": "distillation"},), "anchors": 3},
    "anchors, accumulated": {
        "regularizers": ({"kind": "distillation"},),
        "anchors": 3,
        "batch_size": 1,
        "accumulation": 3,
    },
    "accumulated": {"batch_size": 1, "accumulation": 2, "save_every": 3},
}


def interrupted_at(step):
    def stop(stage, done, _total):
        if stage == "training" and done == step:
            raise KeyboardInterrupt

    return Surroundings(progress=stop)


def teach(tokenizer, work, around=None, **settings):
    config = TuningConfig(**(COMMON | settings))
    return tune(
        tiny.llama(num_hidden_layers=2), tokenizer, tuning_tasks.UPPER, config, around or Surroundings(), work=work
    )


def tensors(tuned):
    return {(name, at): part for name, c in tuned.delta.changes.items() for at, part in enumerate(c.tensors())}


def equal(one, other):
    first, second = tensors(one), tensors(other)
    return first.keys() == second.keys() and all(torch.equal(part, second[key]) for key, part in first.items())


@pytest.mark.parametrize("form", FORMS)
def test_it_goes_on_to_the_same_weights(tokenizer, tmp_path, form):
    """Six or eight steps; a checkpoint after three, an interruption in the fifth, in the middle of the second epoch."""
    whole = teach(tokenizer, None, **FORMS[form])
    with pytest.raises(KeyboardInterrupt):
        teach(tokenizer, tmp_path, interrupted_at(5), **FORMS[form])
    assert (tmp_path / "checkpoint-3").is_dir()
    started = []
    around = Surroundings(progress=lambda stage, done, _total: started.append((stage, done)))
    resumed = teach(tokenizer, tmp_path, around, **FORMS[form])
    assert ("training", 3) in started
    assert ("training", 2) not in started
    assert equal(whole, resumed)


def test_a_training_that_ended_is_not_done_again(tokenizer, tmp_path):
    first = teach(tokenizer, tmp_path, save_every=4)
    steps = []
    around = Surroundings(progress=lambda stage, done, _total: steps.append(done) if stage == "training" else None)
    assert equal(first, teach(tokenizer, tmp_path, around, save_every=4))
    assert steps == [8]


@pytest.mark.parametrize("form", ["plain", "fixed"])
def test_a_checkpoint_whose_state_was_cut_short_is_passed_over(tokenizer, tmp_path, form):
    whole = teach(tokenizer, None, **FORMS[form])
    with pytest.raises(KeyboardInterrupt):
        teach(tokenizer, tmp_path, interrupted_at(7), **FORMS[form])
    (tmp_path / "checkpoint-6" / "trainer_state.json").write_text('{"epoch": 1.5, "glob')
    assert equal(whole, teach(tokenizer, tmp_path, **FORMS[form]))


@pytest.mark.parametrize("form", ["plain", "fixed"])
def test_half_a_checkpoint_is_passed_over(tokenizer, tmp_path, form):
    """An interruption while the last checkpoint was written: the one before is taken."""
    whole = teach(tokenizer, None, **FORMS[form])
    with pytest.raises(KeyboardInterrupt):
        teach(tokenizer, tmp_path, interrupted_at(7), **FORMS[form])
    (tmp_path / "checkpoint-6" / ("trainer_state.json" if form == "plain" else "average.safetensors")).unlink()
    assert equal(whole, teach(tokenizer, tmp_path, **FORMS[form]))


def test_early_stopping_goes_on(tokenizer, tmp_path):
    settings = dict(epochs=4, patience=3)
    whole = teach(tokenizer, None, **settings)
    with pytest.raises(KeyboardInterrupt):
        teach(tokenizer, tmp_path, interrupted_at(10), **settings)
    assert equal(whole, teach(tokenizer, tmp_path, **settings))


def test_targets_are_read_once_and_kept_for_the_next_start(tokenizer, tmp_path, monkeypatch):
    settings = dict(regularizers=FORMS["held"]["regularizers"], anchors=2)
    around = Surroundings(cache=tmp_path / "cache", model_id="tiny")
    first = teach(tokenizer, None, around, **settings)
    stored = sorted(path.name for path in (tmp_path / "cache").iterdir())
    assert len(stored) == 6  # features, heads, and ids and figures of two sets of distributions
    assert all(name.endswith(".npy") for name in stored)

    def never(*_args, **_kwargs):
        raise AssertionError("the reference is read again")

    monkeypatch.setattr("perdure.tuning.top_k.top_k", never)
    assert equal(first, teach(tokenizer, None, around, **settings))


def test_targets_of_other_rows_are_others(tokenizer, tmp_path):
    settings = dict(regularizers=({"kind": "distillation"},))
    around = Surroundings(cache=tmp_path, model_id="tiny")
    teach(tokenizer, None, around, **settings)
    first = len(list(tmp_path.iterdir()))
    teach(tokenizer, None, around, **settings, anchors=1)
    assert len(list(tmp_path.iterdir())) == 2 * first


def test_the_checkpoint_of_a_low_rank_training_is_small(tokenizer, tmp_path):
    teach(tokenizer, tmp_path, save_every=4, averaging={"form": "fixed"})
    folder = tmp_path / "checkpoint-8"
    assert not (folder / "model.safetensors").exists()
    kept = load_file(folder / "average.safetensors")
    assert {key.partition(".")[0] for key in kept} == {"left", "right"}
    shutil.rmtree(folder)
