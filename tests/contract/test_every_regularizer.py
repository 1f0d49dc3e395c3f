"""What every registered regularizer must hold to, on every architecture."""

from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import load, save

import tiny as models
import tuning_tasks
from perdure.deltas import Change, Delta, LowRank
from perdure.errors import SettingError
from perdure.registry import regularizers
from perdure.tuning.config import TuningConfig
from perdure.tuning.encoding import collate, rows_of
from perdure.tuning.forward import forward
from perdure.tuning.regularizer import Surroundings, made
from perdure.tuning.run import target_modules, tune
from perdure.tuning.token_run import TokenRun
from perdure.tuning.trained import dense_attached, lora_attached

PAGES = Path(__file__).parents[2] / "docs" / "methods"
QUICK = {"function_vector": {"heads": ((0, 1), (1, 2)), "shots": 2, "prompts": 2}}
LOW_RANK_ONLY = {"orthogonal"}
EARLIER = {"ewc", "kfac", "orthogonal"}
"""They hold what earlier tasks need: nothing before the first."""
GUIDED = {"function_vector"}
"""They pull somewhere else than where the model is: not zero at the start."""


@pytest.fixture(params=[method.name for method in regularizers])
def method(request):
    return regularizers.get(request.param)


@pytest.fixture(params=["lora", "full"])
def form(request, method):
    if request.param == "full" and method.name in LOW_RANK_ONLY:
        pytest.skip("adapters only")
    return request.param


@pytest.fixture(params=sorted(models.FAMILIES))
def pair(request, tokenizer, monkeypatch):
    monkeypatch.setattr(models, "DEPTH", 2)
    return models.FAMILIES[request.param](), tokenizer


@contextmanager
def running(pair, form, around):
    model, tokenizer = pair
    modules = target_modules(model, None)
    rows = rows_of(tokenizer, tuning_tasks.UPPER.train, 99)
    pairs = [(example.messages[0].content, example.answer) for example in tuning_tasks.UPPER.train]
    if form == "lora":
        attached = lora_attached(model, modules, rank=2, alpha=4, dropout=0.0, seed=0)
    else:
        attached = dense_attached(model, [f"{name}.weight" for name in modules])
    with attached as (network, trained):
        yield TokenRun(network.eval(), tokenizer, rows, pairs, trained, around)


def after_another_task(method, pair, form):
    """Surroundings as they are after one task, small random changes on every trained tensor."""
    generator = torch.Generator().manual_seed(7)
    with running(pair, form, Surroundings()) as run:
        changes = {
            name: Change(LowRank(*(torch.randn(shape, generator=generator) * 0.1 for shape in ((o, 2), (2, i)))))
            for name, (o, i) in ((name, run.trained.change(name).shape) for name in run.trained.names)
        }
        regularizer = prepared(method, run)
        delta = Delta(changes)
        return Surroundings(accumulated=delta, earlier=(delta,), states={method.name: regularizer.after_task(run)})


def prepared(method, run, **settings):
    regularizer = method.call(method.config(**(QUICK.get(method.name, {}) | settings)))
    regularizer.prepare(run)
    return regularizer


def penalty_of(run, regularizer, numbers=(0, 1, 2, 3)):
    seen = forward(run.model, collate([run.rows[n] for n in numbers], numbers), regularizer.taps(run.model))
    return regularizer.penalty(seen)


def gradient_of(run, penalty):
    if not penalty.requires_grad:
        return torch.zeros(1)
    found = torch.autograd.grad(penalty, run.trained.parameters(), allow_unused=True)
    return torch.cat([part.flatten() for part in found if part is not None])


@torch.no_grad()
def step(run):
    generator = torch.Generator().manual_seed(1)
    for parameter in run.trained.parameters():
        parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.05)


def test_it_is_finite_and_pulls_once_something_moved(method, form, pair):
    around = after_another_task(method, pair, form)
    with running(pair, form, around) as run:
        regularizer = prepared(method, run)
        start = penalty_of(run, regularizer)
        assert start.dim() == 0
        assert torch.isfinite(start)
        still = gradient_of(run, start)
        step(run)
        moved = penalty_of(run, regularizer)
        pull = gradient_of(run, moved)
        assert torch.isfinite(moved)
        assert torch.isfinite(pull).all()
        assert float(pull.norm()) > 0
        if method.name not in GUIDED | {"orthogonal"}:
            assert float(start) == pytest.approx(0, abs=1e-6)
            assert float(still.norm()) <= 1e-2 * float(pull.norm())
            assert moved > start


def test_before_the_first_task_it_holds_only_what_a_model_alone_says(method, pair):
    if method.name not in EARLIER:
        pytest.skip("held from the first task on")
    with running(pair, "lora", Surroundings()) as run:
        regularizer = prepared(method, run)
        step(run)
        assert float(penalty_of(run, regularizer)) == 0


def test_what_it_passes_on_survives_a_file(method, form, pair):
    with running(pair, form, Surroundings()) as run:
        state = prepared(method, run).after_task(run)
        names = set(run.trained.names)
    if state:
        assert all(isinstance(value, torch.Tensor) and value.device.type == "cpu" for value in state.values())
        assert all(any(key.endswith(name) for name in names) for key in state)
        read = load(save({name: value.contiguous() for name, value in state.items()}))
        assert all(torch.equal(read[name], value) for name, value in state.items())
        with running(pair, form, Surroundings(states={method.name: read})) as run:
            regularizer = prepared(method, run)
            step(run)
            assert float(penalty_of(run, regularizer)) > 0


def test_what_stands_in_the_padding_changes_nothing(method, pair):
    around = after_another_task(method, pair, "lora")
    with running(pair, "lora", around) as run:
        regularizer = prepared(method, run)
        step(run)
        numbers = (0, 5)
        plain = penalty_of(run, regularizer, numbers)
        batch = collate([run.rows[n] for n in numbers], numbers)
        assert not batch.mask.all()
        batch.inputs["input_ids"][~batch.mask] = 101
        other = regularizer.penalty(forward(run.model, batch, regularizer.taps(run.model)))
        assert float(other) == pytest.approx(float(plain), abs=1e-5)


def test_without_weight_it_is_plain_training(method, tokenizer):
    def taught(**settings):
        config = TuningConfig(batch_size=8, max_steps=2, rank=2, learning_rate=1e-2, **settings)
        found = tune(models.llama(num_hidden_layers=2), tokenizer, tuning_tasks.UPPER, config).delta.changes
        return [part for change in found.values() for part in change.tensors()]

    settings = {"kind": method.name, **QUICK.get(method.name, {})}
    plain, nothing = taught(), taught(regularizers=({**settings, "weight": 0},))
    assert all(torch.equal(one, other) for one, other in zip(plain, nothing, strict=True))
    if method.name not in EARLIER:
        held = taught(regularizers=({**settings, "weight": 100},))
        assert not all(torch.equal(one, other) for one, other in zip(plain, held, strict=True))


def test_settings_are_closed_and_say_what_they_are(method):
    with pytest.raises(SettingError, match=f"regularizer {method.name}"):
        made({"kind": method.name, "no_such_setting": 1})
    with pytest.raises(SettingError, match=f"regularizer {method.name}"):
        made({"kind": method.name, "weight": -1})
    config = method.config(**QUICK.get(method.name, {}))
    assert type(config).model_validate_json(config.model_dump_json()) == config
    undescribed = [name for name, field in method.config.model_fields.items() if not field.description]
    assert undescribed == ["kind"]
    assert method.paper
    assert method.summary


def test_it_has_a_page_that_names_its_settings(method):
    page = (PAGES / f"{method.name}.md").read_text()
    assert [name for name in method.config.model_fields if name != "kind" and f"`{name}`" not in page] == []
    assert "7B" in page
    assert "70B" in page
