"""What the regularizers compute, against figures worked out by hand."""

from contextlib import contextmanager, nullcontext

import pytest
import torch

import tiny
import tuning_tasks
from perdure.deltas import Change, Delta, LowRank
from perdure.errors import ModelError, RequestError, SettingError
from perdure.models.layout import tensors_of
from perdure.registry import regularizers
from perdure.tuning.anchors import anchor_rows
from perdure.tuning.encoding import collate, row_of
from perdure.tuning.forward import forward
from perdure.tuning.kronecker import cost_of_matrix, from_state
from perdure.tuning.reading import evenly
from perdure.tuning.regularizer import Surroundings
from perdure.tuning.regularizers.ewc import fisher_of
from perdure.tuning.regularizers.feature_distance import feature_distance, standardisation, unit
from perdure.tuning.regularizers.function_vector import FunctionVectorConfig, head_distance, task_vector
from perdure.tuning.regularizers.kfac import information
from perdure.tuning.regularizers.l2sp import squared_distance
from perdure.tuning.regularizers.orthogonal import overlap
from perdure.tuning.run import target_modules
from perdure.tuning.token_run import TokenRun
from perdure.tuning.top_k import TopK, divergence, seen_through, top_k
from perdure.tuning.trained import dense_attached, lora_attached

HEADS = {"heads": ((0, 1), (1, 2)), "shots": 2, "prompts": 2}
LORA = dict(rank=2, alpha=4, dropout=0.0, seed=0)
EXAMPLES = tuning_tasks.UPPER.train
PAIRS = [(example.messages[0].content, example.answer) for example in EXAMPLES]


@contextmanager
def running(model, tokenizer, around=None, dense=False, anchors=0):
    rows = [row_of(tokenizer, example) for example in EXAMPLES] + anchor_rows(model, tokenizer, anchors, "passages")
    modules = target_modules(model, None)
    if dense:
        attached = dense_attached(model, [f"{name}.weight" for name in modules])
    else:
        attached = lora_attached(model, modules, **LORA)
    with attached as (network, trained):
        yield TokenRun(network.eval(), tokenizer, rows, PAIRS, trained, around or Surroundings())


def prepared(run, name, **settings):
    method = regularizers.get(name)
    made = method.call(method.config(**settings))
    made.prepare(run)
    return made


def seen_of(run, regularizer, numbers=(0, 1, 2, 3)):
    batch = collate([run.rows[number] for number in numbers], numbers)
    return forward(run.model, batch, regularizer.taps(run.model))


def penalty_and_gradient(run, regularizer, numbers=(0, 1, 2, 3)):
    """The penalty of a batch and its gradient over all trained parameters, as one vector."""
    penalty = regularizer.penalty(seen_of(run, regularizer, numbers))
    found = torch.autograd.grad(penalty, run.trained.parameters(), allow_unused=True)
    parts = [torch.zeros_like(p) if g is None else g for p, g in zip(run.trained.parameters(), found, strict=True)]
    return float(penalty), torch.cat([part.flatten() for part in parts])


@torch.no_grad()
def step(run, size=0.05, seed=0):
    """Move everything that is trained, as a first step does."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in run.trained.parameters():
        parameter.add_(torch.randn(parameter.shape, generator=generator) * size)


@pytest.fixture
def small():
    return tiny.llama(num_hidden_layers=2)


# Top-k ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def logits():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, 5, 9, generator=generator) * 3


def exact(first_NV, second_NV):
    log_p, log_q = first_NV.double().log_softmax(-1), second_NV.double().log_softmax(-1)
    return (log_p.exp() * (log_p - log_q)).sum(-1)


@pytest.mark.parametrize("count", [8, 9, 100])
def test_with_all_tokens_told_apart_the_divergence_is_exact(logits, count):
    first = top_k(logits[0], count)
    found = divergence(first, seen_through(logits[1], first.ids_NK))
    torch.testing.assert_close(found.double(), exact(*logits), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("count", range(1, 8))
def test_with_fewer_it_is_never_larger_and_grows_with_their_number(logits, count):
    def found(k):
        first = top_k(logits[0], k)
        return divergence(first, seen_through(logits[1], first.ids_NK)).double()

    assert (found(count) <= exact(*logits) + 1e-6).all()
    assert (found(count) <= found(count + 1) + 1e-6).all()
    assert (found(count) >= 0).all()


def test_the_divergence_of_a_worked_case():
    first = TopK(torch.tensor([[0]]), torch.tensor([[0.75]]).log(), torch.tensor([0.25]).log())
    second = TopK(torch.tensor([[0]]), torch.tensor([[0.5]]).log(), torch.tensor([0.5]).log())
    assert float(divergence(first, second)) == pytest.approx(0.75 * torch.log(torch.tensor(1.5)) - 0.25 * 0.6931472)


@pytest.mark.parametrize("around", ["model", "reference", "both"])
def test_gradients_are_finite_where_the_rest_has_no_mass(around):
    """Probabilities that are 0 in float32 on either side, in either direction of the divergence."""
    sure = torch.tensor([[300.0, -300.0, -300.0, -300.0]])
    free = torch.tensor([[0.1, 0.2, 0.3, 0.4]])
    now = (sure if around in {"model", "both"} else free).clone().requires_grad_(True)
    reference = top_k(sure if around in {"reference", "both"} else free, 1)
    for forward_ in (True, False):
        mine = seen_through(now, reference.ids_NK)
        loss = (divergence(reference, mine) if forward_ else divergence(mine, reference)).sum()
        (gradient,) = torch.autograd.grad(loss, now)
        assert torch.isfinite(loss)
        assert torch.isfinite(gradient).all()


# LDIFS ----------------------------------------------------------------------------------------------------------


def test_features_that_differ_in_scale_alone_are_the_same():
    """Channels [1, 2, 1]: tokens (3), (4) against (4), (3) times them; along the token axis they would differ."""
    channel_D = torch.tensor([1.0, 2.0, 1.0])
    one_ND, other_ND = (torch.tensor(scale)[:, None] * channel_D for scale in ([3.0, 4.0], [4.0, 3.0]))
    assert float(feature_distance(unit(one_ND), unit(other_ND))) == pytest.approx(0, abs=1e-12)
    along_tokens = [torch.nn.functional.normalize(x, dim=0) for x in (one_ND, other_ND)]
    assert float((along_tokens[0] - along_tokens[1]).square().sum(-1).mean()) > 0.05


@pytest.mark.parametrize("tokens", [3, 300])
def test_unrelated_features_are_two_apart_however_many_tokens(tokens):
    one, other = torch.eye(2)[0].expand(tokens, 4, 2), torch.eye(2)[1].expand(tokens, 4, 2)
    assert float(feature_distance(unit(5 * one), unit(0.1 * other))) == pytest.approx(2)


def test_a_massive_dimension_is_standardised_and_others_are_left_alone():
    generator = torch.Generator().manual_seed(0)
    plain_ND = torch.randn(500, 6, generator=generator)
    massive_ND = plain_ND.clone()
    massive_ND[:, 2] = massive_ND[:, 2] * 3 + 1000
    shift_LD, factor_LD = standardisation(torch.stack([plain_ND, massive_ND], 1))
    assert torch.equal(shift_LD[0], torch.zeros(6))
    assert torch.equal(factor_LD[0], torch.ones(6))
    scores_ND = (massive_ND - shift_LD[1]) * factor_LD[1]
    torch.testing.assert_close(scores_ND.mean(0), torch.zeros(6), atol=2e-3, rtol=0)
    torch.testing.assert_close(scores_ND.var(0), torch.ones(6), atol=2e-2, rtol=0)


def test_the_distance_is_zero_with_no_gradient_before_the_first_step(shallow):
    model, tokenizer = shallow
    with running(model, tokenizer) as run:
        live, cached = (prepared(run, "feature_distance", cached=kept) for kept in (False, True))
        penalty, gradient = penalty_and_gradient(run, live)
        assert penalty == 0
        assert float(gradient.abs().max()) == 0
        stored, noise = penalty_and_gradient(run, cached)
        step(run)
        moved, after = penalty_and_gradient(run, live)
        assert stored < 1e-6 < moved
        assert float(noise.norm()) < 1e-2 * float(after.norm())


def test_cached_live_and_loaded_references_agree(shallow, tokenizer):
    model, _ = shallow
    original = type(model)(model.config).eval()
    original.load_state_dict(model.state_dict())
    with running(model, tokenizer, Surroundings(original=lambda: nullcontext(original))) as run:
        made = [
            prepared(run, "feature_distance", cached=True),
            prepared(run, "feature_distance", cached=False),
            prepared(run, "feature_distance", reference="original"),
        ]
        step(run)
        first, *others = [penalty_and_gradient(run, each)[0] for each in made]
        assert first > 1e-3
        assert others == [pytest.approx(first, abs=1e-5)] * 2


def test_a_live_reference_needs_the_adapters(small, tokenizer):
    with running(small, tokenizer, dense=True) as run, pytest.raises(SettingError, match="cached=false needs"):
        prepared(run, "feature_distance", cached=False)


def test_layers_are_five_evenly_spaced_or_those_given(small, tokenizer):
    method = regularizers.get("feature_distance")
    assert list(method.call(method.config()).taps(small)) == ["block 0", "block 1"]
    assert method.call(method.config())._layers(24) == [4, 9, 13, 18, 23]
    with pytest.raises(SettingError, match="layers: 7 is none of this model's; it has 0 to 1"):
        method.call(method.config(layers=(7,))).taps(small)


def test_a_start_token_that_every_row_has_is_not_held(small):
    tokenizer = tiny.tokenizer()
    from tokenizers.processors import TemplateProcessing

    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    with running(small, tokenizer) as run:
        made = prepared(run, "feature_distance")
        batch = collate(run.rows[:3], range(3))
        held = torch.zeros_like(batch.mask)
        held[made._held.places(batch, batch.mask.shape[1])] = True
        assert held.sum() == batch.mask.sum() - 3
        assert not held[torch.arange(3), batch.mask.int().argmax(1)].any()


# L2-SP, EWC, O-LoRA ---------------------------------------------------------------------------------------------


def test_distances_of_factors_are_those_of_their_products(shallow):
    model, tokenizer = shallow
    with running(model, tokenizer) as run:
        step(run, 0.3)
        changes = {name: change.value() for name, change in run.trained.delta().changes.items()}
        for name in run.trained.names:
            torch.testing.assert_close(run.trained.change(name).double(), changes[name], atol=1e-6, rtol=1e-5)
            assert float(run.trained.squared(name)) == pytest.approx(float(changes[name].square().sum()), rel=1e-4)
        penalty, _ = penalty_and_gradient(run, prepared(run, "l2sp"))
        assert penalty == pytest.approx(sum(float(value.square().sum()) for value in changes.values()) / 2, rel=1e-5)


def test_the_gradient_of_l2sp_on_weights_is_what_they_moved(small, tokenizer):
    with running(small, tokenizer, dense=True) as run:
        made = prepared(run, "l2sp")
        penalty, gradient = penalty_and_gradient(run, made)
        assert penalty == 0
        assert not gradient.any()
        step(run)
        moved = torch.cat([run.trained.change(name).flatten() for name in run.trained.names]).detach()
        torch.testing.assert_close(penalty_and_gradient(run, made)[1], moved)


@pytest.mark.parametrize("dense", [False, True])
def test_the_original_is_further_away_by_what_earlier_tasks_changed(small, tokenizer, dense):
    name = "model.layers.1.mlp.down_proj.weight"
    left, right = torch.randn(32, 3), torch.randn(3, 48)
    around = Surroundings(accumulated=Delta({name: Change(LowRank(left, right))}))
    with running(small, tokenizer, around, dense=dense) as run:
        near, far = prepared(run, "l2sp"), prepared(run, "l2sp", reference="original")
        start, gradient = penalty_and_gradient(run, far)
        assert start == pytest.approx(float((left @ right).square().sum()) / 2, rel=1e-5)
        assert gradient.any()  # it pulls back before the first step
        step(run)
        change = run.trained.change(name)
        expected = float(
            squared_distance(run.trained, {}) - change.square().sum() + (left @ right + change).square().sum()
        )
        assert penalty_and_gradient(run, far)[0] == pytest.approx(expected / 2, rel=1e-5)
        assert penalty_and_gradient(run, near)[0] == pytest.approx(float(squared_distance(run.trained, {})) / 2)


@pytest.mark.parametrize("dense", [False, True])
def test_fisher_information_is_that_of_tokens_drawn_from_the_model(shallow, dense):
    model, tokenizer = shallow
    with running(model, tokenizer, dense=dense, anchors=20) as run:
        step(run, 0.02)
        found = fisher_of(run, 3)
        name = run.trained.names[-1]
        (weight,) = tensors_of(run.model, [name]).values()
        weight.requires_grad_(True)
        squares, count = 0, 0
        generator = torch.Generator().manual_seed(0)
        for number in evenly(range(len(EXAMPLES)), 3):
            losses = forward(run.model, collate([run.rows[number]], [0])).sampled_losses(generator)
            squares, count = squares + torch.autograd.grad(losses.sum(), weight)[0].square(), count + len(losses)
        torch.testing.assert_close(found[name], squares / count, atol=1e-7, rtol=1e-4)
        assert found.keys() == set(run.trained.names)


def test_tokens_are_drawn_as_often_as_the_model_says(small, tokenizer):
    with running(small, tokenizer) as run:
        seen = run.forward(run.model, run.batch([0]))
        chances_NV = seen.logits_NV.detach().softmax(-1)
        generator = torch.Generator().manual_seed(0)
        drawn = torch.stack([seen.sampled_losses(generator).detach() for _ in range(4000)]).mean(0)
        entropies = torch.distributions.Categorical(chances_NV).entropy()
        torch.testing.assert_close(drawn, entropies, atol=0.05, rtol=0.05)


@pytest.mark.parametrize("dense", [False, True])
def test_the_factors_of_one_row_are_the_partial_traces_of_its_gradient(shallow, dense):
    model, tokenizer = shallow
    with running(model, tokenizer, dense=dense) as run:
        step(run, 0.02)
        found = information(run, [0], 64)
        weights = tensors_of(run.model, list(run.trained.names))
        for weight in weights.values():
            weight.requires_grad_(True)
        losses = run.forward(run.model, run.batch([0])).sampled_losses(torch.Generator().manual_seed(0))
        gradients = dict(zip(weights, torch.autograd.grad(losses.sum(), list(weights.values())), strict=True))
        assert found.keys() == set(run.trained.names)
        for name, (outer, inner) in found.items():
            gradient = gradients[name]
            trace = float(gradient.square().sum())
            for each, right in zip((outer, inner), (gradient @ gradient.T, gradient.T @ gradient), strict=True):
                (whole,) = each.whole()
                torch.testing.assert_close(whole / whole.trace(), right / trace, atol=1e-4, rtol=1e-2)
            size = float(outer.whole()[0].trace() * inner.whole()[0].trace())
            assert size == pytest.approx(trace / len(losses), rel=1e-3)


def test_kfac_holds_what_earlier_tasks_depend_on(shallow):
    model, tokenizer = shallow
    with running(model, tokenizer) as run:
        step(run, 0.02)
        state = prepared(run, "kfac", rank=4).after_task(run)
    with running(model, tokenizer, Surroundings(states={"kfac": state})) as run:
        made = prepared(run, "kfac", rank=4)
        assert penalty_and_gradient(run, made)[0] == 0
        step(run)
        known = from_state(state)
        names = run.trained.names
        costs = [float(cost_of_matrix(run.trained.change(name), *known[name])) for name in names]
        expected = len(names) * sum(costs) / 2
        assert expected > 0
        assert penalty_and_gradient(run, made)[0] == pytest.approx(expected, rel=1e-4)
        twice = from_state(made.after_task(run))
        name = run.trained.names[0]
        assert len(twice[name][0].rest_S) == 2
        torch.testing.assert_close(twice[name][0].whole()[0], known[name][0].whole()[0])


def test_kfac_holds_what_the_anchors_show_before_the_first_task(shallow, tmp_path):
    model, tokenizer = shallow
    with running(model, tokenizer, Surroundings(cache=tmp_path, model_id="m"), anchors=3) as run:
        own = information(run, [number for number, anchor in enumerate(run.anchors) if anchor], 4)
        made = prepared(run, "kfac", rank=4)
        assert penalty_and_gradient(run, made)[0] == 0
        step(run)
        names = run.trained.names
        expected = len(names) * sum(float(cost_of_matrix(run.trained.change(name), *own[name])) for name in names) / 2
        assert expected > 0
        assert penalty_and_gradient(run, made)[0] == pytest.approx(expected, rel=1e-4)
        again = prepared(run, "kfac", rank=4)  # of the file: the model is another by now
        assert penalty_and_gradient(run, again)[0] == pytest.approx(expected, rel=1e-4)
        state = made.after_task(run)
    with running(model, tokenizer, Surroundings(states={"kfac": state}), anchors=3) as run:
        later = from_state(prepared(run, "kfac", rank=4).after_task(run))
    for name in names:
        assert later[name][0].rest_S.shape == (3,)
        torch.testing.assert_close(later[name][0].rest_S[:1], own[name][0].rest_S)


def test_kfac_holds_nothing_before_the_first_task_without_anchors(small, tokenizer):
    with running(small, tokenizer) as run:
        made = prepared(run, "kfac")
        step(run)
        assert penalty_and_gradient_of_constant(run, made) == (0, None)


def test_fisher_information_leaves_flags_and_weights(small, tokenizer):
    with running(small, tokenizer) as run:
        flags = [parameter.requires_grad for parameter in run.model.parameters()]
        fisher_of(run, 2)
        assert flags == [parameter.requires_grad for parameter in run.model.parameters()]
        assert all(parameter.grad is None for parameter in run.model.parameters())


def test_ewc_holds_weights_by_their_information(small, tokenizer):
    name = "model.layers.0.mlp.up_proj.weight"
    fisher = torch.rand(48, 32)
    around = Surroundings(states={"ewc": {name: fisher}})
    with running(small, tokenizer, around) as run:
        made = prepared(run, "ewc")
        assert penalty_and_gradient(run, made)[0] == 0
        step(run)
        expected = float((fisher * run.trained.change(name).square()).sum()) / 2
        assert penalty_and_gradient(run, made)[0] == pytest.approx(expected, rel=1e-5)
        kept, decayed = made.after_task(run), prepared(run, "ewc", decay=0.5).after_task(run)
        fresh = fisher_of(run, 64)
        torch.testing.assert_close(kept[name], fisher + fresh[name])
        torch.testing.assert_close(decayed[name], fisher / 2 + fresh[name])


def test_ewc_holds_nothing_before_the_first_task(small, tokenizer):
    with running(small, tokenizer) as run:
        made = prepared(run, "ewc")
        step(run)
        penalty, gradient = penalty_and_gradient_of_constant(run, made)
        assert penalty == 0
        assert gradient is None


def penalty_and_gradient_of_constant(run, made):
    penalty = made.penalty(seen_of(run, made))
    return float(penalty), penalty.grad_fn


def test_the_overlap_of_input_directions():
    """Rows e₁, 2e₂ before and e₁ + e₃ now: A Aᵀ = (1, 0), squared 1; orthogonal rows give 0."""
    earlier = torch.tensor([[1.0, 0, 0, 0], [0, 2, 0, 0]])
    assert float(overlap(earlier, torch.tensor([[1.0, 0, 1, 0]]))) == 1
    assert float(overlap(earlier, torch.tensor([[0.0, 0, 1, 0], [0, 0, 0, 5]]))) == 0


def test_an_adapter_is_held_from_the_directions_of_earlier_ones(shallow):
    """In GPT-2 the tensors are stored [I, O]: the input directions are then the left factor's columns."""
    model, tokenizer = shallow
    with running(model, tokenizer) as run:
        step(run, 0.3)
        first = run.trained.delta()
    around = Surroundings(earlier=(first,))
    with running(model, tokenizer, around) as run:
        made = prepared(run, "orthogonal")
        step(run, 0.3, seed=1)
        penalty, gradient = penalty_and_gradient(run, made)
        expected = 0.0
        for name, pair in run.trained.pairs.items():
            stored = first.changes[name].low_rank
            rows = stored.left.T if pair.transposed else stored.right
            assert rows.shape[1] == pair.a_RI.shape[1]
            expected += float((rows @ pair.a_RI.T).square().sum())
        assert penalty == pytest.approx(expected, rel=1e-5)
        assert gradient.any()
        with torch.no_grad():  # take the shared directions out of the new adapters
            for name, pair in run.trained.pairs.items():
                stored = first.changes[name].low_rank
                rows = stored.left.T if pair.transposed else stored.right
                basis, _ = torch.linalg.qr(rows.T)
                pair.a_RI.sub_(pair.a_RI @ basis @ basis.T)
        assert penalty_and_gradient(run, made)[0] == pytest.approx(0, abs=1e-8)


def test_holding_adapters_apart_needs_adapters(small, tokenizer):
    with running(small, tokenizer, dense=True) as run, pytest.raises(SettingError, match="method=lora"):
        prepared(run, "orthogonal")


# Distillation and function vectors ------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 16, 259, 1000])
def test_distillation_is_zero_before_the_first_step(shallow, count):
    model, tokenizer = shallow
    with running(model, tokenizer) as run:
        made = prepared(run, "distillation", top_k=count)
        penalty, gradient = penalty_and_gradient(run, made)
        assert penalty == pytest.approx(0, abs=1e-6)
        step(run)
        moved, after = penalty_and_gradient(run, made)
        assert moved > 1e-4
        assert float(gradient.norm()) < 1e-3 * float(after.norm())


def test_distillation_with_all_tokens_is_the_exact_divergence(small, tokenizer):
    with running(small, tokenizer) as run:
        made = prepared(run, "distillation", top_k=1000)
        before = seen_of(run, made).logits_NV.detach()
        step(run)
        seen = seen_of(run, made)
        assert float(made.penalty(seen)) == pytest.approx(float(exact(before, seen.logits_NV).mean()), rel=1e-4)


def test_the_distance_of_heads_is_a_sum_over_heads_and_a_mean_over_rows():
    now = torch.tensor([[[1.0, 2], [0, 0]], [[0, 0], [3, 0]]])
    assert float(head_distance(now, torch.zeros_like(now))) == (5 + 9) / 2


@pytest.mark.parametrize("checkpointing", [False, True])
def test_heads_are_held_from_the_first_step_on(shallow, checkpointing):
    model, tokenizer = shallow
    with running(model, tokenizer) as run:
        made = prepared(run, "function_vector", guidance=0, **HEADS)
        if checkpointing:
            run.model.gradient_checkpointing_enable({"use_reentrant": False})
        run.model.train()
        start, still = penalty_and_gradient(run, made)
        step(run)
        moved, pulled = penalty_and_gradient(run, made)
        assert start == pytest.approx(0, abs=1e-9)
        assert moved > 1e-3
        assert float(still.norm()) < 1e-4 * float(pulled.norm())
        assert float(pulled.norm()) > 0


def test_reentrant_checkpointing_is_refused(small, tokenizer):
    with running(small, tokenizer) as run:
        made = prepared(run, "function_vector", **HEADS)
        run.model.gradient_checkpointing_enable({"use_reentrant": True})
        run.model.train()
        with pytest.raises(ModelError, match="use_reentrant=False"):
            seen_of(run, made)


@pytest.mark.parametrize("count", [8, 1000])
def test_without_a_vector_guidance_starts_at_zero(shallow, count, monkeypatch):
    model, tokenizer = shallow
    monkeypatch.setattr(
        "perdure.tuning.regularizers.function_vector.task_vector",
        lambda *_args, **_more: torch.zeros(32, dtype=torch.float64),
    )
    with running(model, tokenizer) as run:
        made = prepared(run, "function_vector", consistency=0, guidance=1, top_k=count, **HEADS)
        penalty, gradient = penalty_and_gradient(run, made)
        assert penalty == pytest.approx(0, abs=1e-6)
        step(run)
        assert float(gradient.norm()) < 1e-3 * float(penalty_and_gradient(run, made)[1].norm())


def test_guidance_is_towards_the_model_with_the_vector_added(small, tokenizer):
    from perdure.models import layout_of, patch_output

    with running(small, tokenizer) as run:
        made = prepared(run, "function_vector", consistency=0, guidance=1, top_k=1000, layer=1, **HEADS)
        config = FunctionVectorConfig(layer=1, **HEADS)
        theta_D = task_vector(run.model, tokenizer, PAIRS, config.heads, config)
        assert float(theta_D.norm()) > 0
        seen = seen_of(run, made)
        block = layout_of(run.model).blocks[1]
        with torch.no_grad(), patch_output(block, lambda hidden: hidden + theta_D.float()):
            guided = seen_of(run, made).logits_NV
        # Adding at the last block moves nothing but the place itself, so adding everywhere is the same there.
        assert float(made.penalty(seen)) == pytest.approx(
            float(exact(seen.logits_NV.detach(), guided).mean()), rel=1e-3
        )


def test_general_text_is_not_guided(small, tokenizer):
    """Anchors are no examples of the new task: there the reference is the model as it was."""
    with running(small, tokenizer, anchors=2) as run:
        made = prepared(run, "function_vector", consistency=0, guidance=1, **HEADS)
        anchors = [number for number, row in enumerate(run.rows) if row.anchor]
        assert penalty_and_gradient(run, made, anchors)[0] == pytest.approx(0, abs=1e-6)
        assert penalty_and_gradient(run, made)[0] > 1e-4


def test_heads_must_be_given_or_found(small, tokenizer):
    with running(small, tokenizer) as run:
        with pytest.raises(SettingError, match="needs heads"):
            prepared(run, "function_vector")
        with pytest.raises(SettingError, match=r"heads: \(9, 0\) is none of 2 layers of 4 heads"):
            prepared(run, "function_vector", heads=((9, 0),))
        with pytest.raises(SettingError, match="layer: 5 is none"):
            prepared(run, "function_vector", layer=5, **HEADS)
    none = Surroundings(find_heads=lambda *_: ())
    with running(small, tokenizer, none) as run, pytest.raises(RequestError, match="no head carries"):
        prepared(run, "function_vector")
    with running(small, tokenizer, Surroundings(find_heads=lambda *_: ((1, 1),))) as run:
        assert list(prepared(run, "function_vector").taps(run.model)) == ["heads 1"]


@pytest.mark.parametrize("name", ["distillation", "feature_distance", "function_vector"])
def test_batches_and_their_padding_change_nothing(shallow, name):
    """The rows' own penalties do not depend on which rows stand beside them."""
    model, tokenizer = shallow
    settings = HEADS if name == "function_vector" else {}
    with running(model, tokenizer) as run:
        made = prepared(run, name, **settings)
        step(run)
        numbers = (0, 3, 5)
        together = seen_of(run, made, numbers)
        together.batch.inputs["input_ids"][~together.batch.mask] = 99
        again = forward(run.model, together.batch, made.taps(run.model))
        assert float(made.penalty(again)) == pytest.approx(float(made.penalty(together)), abs=2e-5)
        if name == "function_vector":  # mean over rows; guidance is a mean over tokens
            made = prepared(run, name, guidance=0, **settings)
            weights = dict.fromkeys(numbers, 1)
        elif name == "distillation":
            weights = {n: sum(run.rows[n].learns[1:]) for n in numbers}
        else:
            weights = {n: len(made._held.of(n, 0)) for n in numbers}
        apart = sum(weights[n] * float(made.penalty(seen_of(run, made, [n]))) for n in numbers) / sum(weights.values())
        assert float(made.penalty(seen_of(run, made, numbers))) == pytest.approx(apart, abs=2e-5, rel=1e-4)
