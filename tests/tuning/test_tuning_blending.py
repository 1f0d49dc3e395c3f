"""Averaging with the weights of before, on a real training."""

from dataclasses import replace

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

import tiny
import tuning_tasks
from perdure.tuning.blending import Averaging, Blend, groups_of, slopes_and_curvatures
from perdure.tuning.config import AveragingConfig, TuningConfig
from perdure.tuning.encoding import collate, rows_of
from perdure.tuning.forward import forward
from perdure.tuning.regularizer import Surroundings
from perdure.tuning.run import target_modules, tune
from perdure.tuning.token_run import TokenRun
from perdure.tuning.trained import dense_attached, lora_attached

SHORT = dict(batch_size=4, epochs=3, learning_rate=1e-2, rank=2, alpha=4)


@pytest.fixture
def teach(tokenizer):
    def taught(**settings):
        model = tiny.llama(num_hidden_layers=2)
        task = replace(tuning_tasks.UPPER, validation=())
        return tune(model, tokenizer, task, TuningConfig(**(SHORT | settings))).delta

    return taught


def values(delta):
    return {name: change.value() for name, change in delta.changes.items()}


@pytest.mark.parametrize("method", ["lora", "full"])
@pytest.mark.parametrize("metric", ["isotropic", "fisher"])
def test_the_sound_share_scales_the_change_of_each_group(teach, method, metric):
    held = {"regularizers": ({"kind": "kfac", "rows": 2},)} if metric == "fisher" else {}
    plain, blended = (
        teach(method=method),
        teach(method=method, averaging={"form": "sound", "metric": metric, "groups": 2}, **held),
    )
    shares = blended.notes["averaging"]["shares"]
    assert len(shares) == 2
    assert all(0 <= share <= 1 for share in shares)
    assert any(share > 0 for share in shares)
    before, after = values(plain), values(blended)
    for name, value in before.items():
        share = shares[int(name.split(".")[2])]
        torch.testing.assert_close(after[name], value * (1 - share), atol=1e-6, rtol=1e-5)


def test_the_more_stability_weighs_the_more_of_the_old_weights_is_kept(teach):
    def share(strength, tolerance=100.0):
        averaging = {"form": "sound", "strength": strength, "tolerance": tolerance, "groups": 1}
        return teach(averaging=averaging).notes["averaging"]["shares"][0]

    found = [share(strength) for strength in (0.0, 1.0, 1e6)]
    assert found == sorted(found)
    assert found[0] < found[1] < found[2] == pytest.approx(1, abs=1e-3)
    assert share(1e6, tolerance=0.0) < 0.5


def test_a_ratio_keeps_that_share_of_the_old_weights(teach):
    before, after = values(teach()), values(teach(averaging={"form": "ratio", "ratio": 0.25}))
    for name, value in before.items():
        torch.testing.assert_close(after[name], value * 0.75)


def test_a_blend_without_shares_changes_nothing(teach):
    plain = teach()
    assert all(torch.equal(value, values(plain)[name]) for name, value in values(Blend({}).applied(plain)).items())


@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_fixed_decay_averages_the_changes_themselves(teach, monkeypatch, method):
    """The average of every step's product, by hand and whole, from zero at the start of the task."""
    decay, steps = 0.7, []
    step = Averaging.on_optimizer_step

    def note(self, *args, **more):
        steps.append({name: change.value() for name, change in self._trained.delta().changes.items()})
        step(self, *args, **more)

    monkeypatch.setattr(Averaging, "on_optimizer_step", note)
    averaged = values(teach(method=method, epochs=1, averaging={"form": "fixed", "decay": decay}))
    assert len(steps) == 2
    expected = {name: torch.zeros_like(value) for name, value in averaged.items()}
    for changes in steps:
        expected = {name: decay * value + (1 - decay) * changes[name] for name, value in expected.items()}
    for name, value in averaged.items():
        torch.testing.assert_close(value.double(), expected[name].double(), atol=1e-5, rtol=0)
        assert float(value.norm()) > 0


def test_what_many_averagings_lose_is_little(teach, monkeypatch):
    decay, expected = 0.9, {}
    step = Averaging.on_optimizer_step

    def note(self, *args, **more):
        for name, change in self._trained.delta().changes.items():
            expected[name] = decay * expected.get(name, 0) + (1 - decay) * change.value()
        step(self, *args, **more)

    monkeypatch.setattr(Averaging, "on_optimizer_step", note)
    averaged = values(teach(epochs=10, averaging={"form": "fixed", "decay": decay}))
    for name, value in averaged.items():
        assert float((value - expected[name]).norm()) < 0.05 * float(expected[name].norm())


@pytest.mark.parametrize("dense", [False, True])
def test_slopes_and_curvatures_are_those_of_the_loss(tokenizer, dense):
    """Against autograd's gradient and Hessian-vector products, for a small step from the start."""
    model = tiny.llama(num_hidden_layers=2)
    rows = rows_of(tokenizer, tuning_tasks.UPPER.train, 99)
    names = target_modules(model, ["q_proj", "down_proj"])
    if dense:
        attached = dense_attached(model, [f"{name}.weight" for name in names])
    else:
        attached = lora_attached(model, names, rank=2, alpha=4, dropout=0.0, seed=0)
    with attached as (network, trained):
        run = TokenRun(network.eval(), tokenizer, rows, [], trained, Surroundings())
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter, _ in trained.moving().values():
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.003)
        groups = groups_of(network, run.base, list(trained.names), 2)
        before = [parameter.detach().clone() for parameter, _ in trained.moving().values()]
        slope_K, curvature_KK = slopes_and_curvatures(run, groups, range(len(rows)))
        after = [parameter for parameter, _ in trained.moving().values()]
        for one, other in zip(before, after, strict=True):
            torch.testing.assert_close(one, other, atol=1e-7, rtol=1e-6)
        with sdpa_kernel(SDPBackend.MATH):  # the kernel that can be differentiated twice
            expected_K, expected_KK = by_autograd(run, groups)
    torch.testing.assert_close(slope_K, expected_K, rtol=1e-3, atol=1e-6)
    scale = float(expected_KK.abs().max())
    torch.testing.assert_close(curvature_KK, expected_KK, rtol=0, atol=0.05 * scale)


def by_autograd(run, groups):
    moving = run.trained.moving()
    seen = forward(run.model, collate(run.rows, range(len(run.rows))))
    weights = [parameter for parameter, _ in moving.values()]
    steps = {name: (now - start.to(now)).detach() for name, (now, start) in moving.items()}
    gradients = dict(zip(moving, torch.autograd.grad(seen.losses().mean(), weights, create_graph=True), strict=True))
    slopes = [sum((gradients[name] * steps[name]).sum() for name in group) for group in groups]
    columns = []
    for slope in slopes:
        along = dict(zip(moving, torch.autograd.grad(slope, weights, retain_graph=True), strict=True))
        columns.append(torch.stack([sum((along[name] * steps[name]).sum() for name in group) for group in groups]))
    return torch.stack(slopes).detach().double(), torch.stack(columns, 1).double()


def test_groups_are_neighbouring_blocks(tokenizer):
    model = tiny.llama()
    names = [f"{name}.weight" for name in target_modules(model, None)]
    found = groups_of(model, model, names, 2)
    assert [sorted({int(name.split(".")[2]) for name in group}) for group in found] == [[0, 1], [2, 3]]
    assert len(groups_of(model, model, names, 99)) == 4
    assert sorted(name for group in found for name in group) == sorted(names)


def test_only_two_forms_average_after_every_step(tmp_path):
    forms = ("none", "sound", "published", "fixed", "ratio")
    found = [form for form in forms if Averaging(None, AveragingConfig(form=form), tmp_path).each_step]
    assert found == ["published", "fixed"]


def test_what_is_averaged_away_is_judged_on_rows_that_were_not_learnt(tokenizer, monkeypatch):
    asked = []
    monkeypatch.setattr("perdure.tuning.blending.slopes_and_curvatures", _asking(asked))
    for held in ((), tuning_tasks.UPPER.train[:3]):
        task = replace(tuning_tasks.UPPER, validation=held)
        settings = TuningConfig(**SHORT, averaging={"form": "sound", "rows": 2})
        tune(tiny.llama(num_hidden_layers=2), tokenizer, task, settings)
    count = len(tuning_tasks.UPPER.train)
    assert asked == [[0, count // 2], [count, count + 1]]


def _asking(asked):
    def asking(run, groups, rows):
        asked.append(rows)
        return slopes_and_curvatures(run, groups, rows)

    return asking
