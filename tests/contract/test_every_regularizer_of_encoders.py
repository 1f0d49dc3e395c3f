"""What every registered regularizer must hold to where encoders learn labelled sets."""

from contextlib import contextmanager

import pytest
import torch
from safetensors.torch import load, save

import encoder_sets as sets
from perdure.deltas import Change, Delta, LowRank
from perdure.errors import SettingError
from perdure.registry import regularizers
from perdure.tuning.encoders.config import EncoderTuningConfig
from perdure.tuning.encoders.run import item_run, tune_encoder
from perdure.tuning.regularizer import Surroundings

WRITING = {"function_vector": {"heads": ((0, 1),)}}
"""They hold how a decoder writes, and say so."""
LOW_RANK_ONLY = {"orthogonal"}
PROJECTIONS_ONLY = {"kfac"}
EARLIER = {"ewc", "kfac", "orthogonal"}
"""They hold what earlier sets need: nothing before the first."""


@pytest.fixture(params=[method.name for method in regularizers])
def method(request):
    return regularizers.get(request.param)


@pytest.fixture(params=sorted(sets.FAMILIES))
def family(request):
    return request.param


@pytest.fixture(params=["full", "lora"])
def form(request, family, method):
    if request.param == "full" and method.name in LOW_RANK_ONLY:
        pytest.skip("adapters only")
    if request.param == "lora" and family == "resnet":
        pytest.skip("no projections")
    return request.param


@pytest.fixture
def holding(method, family):
    if method.name in WRITING:
        pytest.skip("decoders only")
    if method.name in PROJECTIONS_ONLY and family == "resnet":
        pytest.skip("no projections")
    return method


@contextmanager
def running(family, form, method, around, probe=None):
    config = EncoderTuningConfig(method=form, rank=2, alpha=4, regularizers=({"kind": method.name},))
    with item_run(sets.FAMILIES[family](), probe or sets.probe(sets.SIDES[family]), config, around) as run:
        yield run


def prepared(method, run, **settings):
    made = method.call(method.config(**WRITING.get(method.name, {}), **settings))
    made.prepare(run)
    return made


def after_another_set(family, form, method):
    """Surroundings as they are after one set, small random changes on every trained tensor."""
    generator = torch.Generator().manual_seed(7)
    with running(family, form, method, Surroundings()) as run:
        changes = {}
        for name in run.trained.names:
            shape = run.trained.change(name).shape
            if len(shape) == 2:
                factors = (torch.randn(size, generator=generator) * 0.1 for size in ((shape[0], 2), (2, shape[1])))
                changes[name] = Change(LowRank(*factors))
            else:
                changes[name] = Change(dense=torch.randn(shape, generator=generator) * 0.1)
        delta = Delta(changes)
        state = prepared(method, run).after_task(run)
        return Surroundings(accumulated=delta, earlier=(delta,), states={method.name: state})


def penalty_of(run, regularizer, numbers=(0, 1, 2, 3)):
    return regularizer.penalty(run.forward(run.model, run.batch(list(numbers)), regularizer.taps(run.model)))


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


def test_it_is_finite_and_pulls_once_something_moved(holding, form, family):
    around = after_another_set(family, form, holding)
    with running(family, form, holding, around) as run:
        regularizer = prepared(holding, run)
        start = penalty_of(run, regularizer)
        assert start.dim() == 0
        still = gradient_of(run, start)
        step(run)
        moved = penalty_of(run, regularizer)
        pull = gradient_of(run, moved)
        assert torch.isfinite(torch.stack([start.detach(), moved.detach()])).all()
        assert torch.isfinite(pull).all()
        assert float(pull.norm()) > 0
        if holding.name != "orthogonal":
            assert float(start) == pytest.approx(0, abs=1e-6)
            assert float(still.norm()) <= 1e-2 * float(pull.norm())
            assert moved > start


def test_before_the_first_set_it_holds_only_what_an_encoder_alone_says(holding, family):
    if holding.name not in EARLIER:
        pytest.skip("held from the first set on")
    if family == "resnet" and holding.name in LOW_RANK_ONLY:
        pytest.skip("no projections")
    form = "lora" if holding.name in LOW_RANK_ONLY else "full"
    with running(family, form, holding, Surroundings()) as run:
        regularizer = prepared(holding, run)
        step(run)
        assert float(penalty_of(run, regularizer)) == 0


@pytest.mark.parametrize("limit", [None, 4, 30])
def test_texts_of_any_length_are_held_wherever_the_longest_stands(holding, limit, tmp_path):
    """Of a hundred rows every third is looked at; none of these is the longest."""
    if "tokens" not in holding.config.model_fields and limit is not None:
        pytest.skip("holds no tokens")
    form = "lora" if holding.name in LOW_RANK_ONLY else "full"
    settings = {} if limit is None else {"tokens": limit}
    with running("bert", form, holding, Surroundings(cache=tmp_path), sets.uneven(100, longest=1)) as run:
        regularizer = prepared(holding, run, **settings)
        assert float(penalty_of(run, regularizer, (0, 1, 3, 6)).detach()) == pytest.approx(0, abs=1e-6)
        step(run)
        assert torch.isfinite(penalty_of(run, regularizer, (1,)))


def test_what_it_passes_on_survives_a_file(holding, form, family):
    with running(family, form, holding, Surroundings()) as run:
        state, names = prepared(holding, run).after_task(run), set(run.trained.names)
    if state:
        assert all(any(key.endswith(name) for name in names) for key in state)
        read = load(save({name: value.contiguous() for name, value in state.items()}))
        with running(family, form, holding, Surroundings(states={holding.name: read})) as run:
            regularizer = prepared(holding, run)
            step(run)
            assert float(penalty_of(run, regularizer)) > 0


def test_without_weight_it_is_plain_training(method, family):
    def taught(**settings):
        config = EncoderTuningConfig(batch_size=6, max_steps=2, learning_rate=1e-3, warmup=0, **settings)
        found = tune_encoder(sets.FAMILIES[family](), sets.probe(sets.SIDES[family]), config)
        return [part for change in found.delta.changes.values() for part in change.tensors()]

    settings = {"kind": method.name, **WRITING.get(method.name, {})}
    plain, nothing = taught(), taught(regularizers=({**settings, "weight": 0},))
    assert all(torch.equal(one, other) for one, other in zip(plain, nothing, strict=True))
    if method.name not in EARLIER | WRITING.keys():
        held = taught(regularizers=({**settings, "weight": 100},))
        assert not all(torch.equal(one, other) for one, other in zip(plain, held, strict=True))


def test_what_holds_no_encoder_says_so(method, family):
    said = "decoder|heads that write|needs method=lora|holds projections"
    convolutions = method.name in PROJECTIONS_ONLY and family == "resnet"
    if method.name not in WRITING.keys() | LOW_RANK_ONLY and not convolutions:
        pytest.skip("holds encoders")
    with running(family, "full", method, Surroundings()) as run, pytest.raises(SettingError, match=said):
        prepared(method, run)
