"""What the regularizers compute on encoders, against figures worked out by hand."""

from contextlib import contextmanager, nullcontext

import pytest
import torch

import encoder_sets as sets
from perdure.errors import SettingError
from perdure.registry import regularizers
from perdure.tuning.encoders.config import EncoderTuningConfig
from perdure.tuning.encoders.heads import random_head
from perdure.tuning.encoders.item_run import ItemRun
from perdure.tuning.encoders.run import item_run
from perdure.tuning.regularizer import Surroundings
from perdure.tuning.regularizers.ewc import fisher_of
from perdure.tuning.regularizers.feature_distance import along_tokens, feature_distance, unit


@contextmanager
def running(family, around=None, anchors=None, weights=None, known=(), encoder=None, count=12, **settings):
    encoder, side = encoder or getattr(sets, family)(), sets.SIDES[family]
    config = EncoderTuningConfig(rank=2, alpha=4, **settings)
    more = {"known": known, "anchors": anchors, "anchor_weights": weights}
    with item_run(encoder, sets.probe(side, count), config, around or Surroundings(), **more) as run:
        yield run


def prepared(run, name, **settings):
    method = regularizers.get(name)
    made = method.call(method.config(**settings))
    made.prepare(run)
    return made


def seen_of(run, regularizer, numbers=(0, 1, 2, 3)):
    return run.forward(run.model, run.batch(list(numbers)), regularizer.taps(run.model))


def penalty_of(run, regularizer, numbers=(0, 1, 2, 3)):
    return regularizer.penalty(seen_of(run, regularizer, numbers))


@torch.no_grad()
def step(run, size=0.05, seed=0):
    generator = torch.Generator().manual_seed(seed)
    for parameter in run.trained.parameters():
        parameter.add_(torch.randn(parameter.shape, generator=generator) * size)


@pytest.fixture(params=sorted(sets.FAMILIES))
def family(request):
    return request.param


# LDIFS ----------------------------------------------------------------------------------------------------------


def test_along_the_tokens_unrelated_features_score_two_over_their_number():
    """Rows of 2 and of 8 tokens, channels of one sign in the one and of changing sign in the other."""
    for tokens in (2, 8):
        one_ND = torch.full((tokens, 4), 3.0)
        other_ND = torch.tensor([1.0, -1.0]).repeat(tokens // 2)[:, None].expand(tokens, 4) * 0.2
        rows_N = torch.zeros(tokens, dtype=torch.long)
        divided = [along_tokens(each, rows_N, 1) for each in (one_ND, other_ND)]
        assert float(feature_distance(*divided)) / 4 == pytest.approx(2 / tokens)
        assert float(feature_distance(unit(one_ND), unit(other_ND))) == pytest.approx(2)


def test_along_the_tokens_rows_do_not_mix():
    features_ND = torch.tensor([[3.0, 1.0], [4.0, 0.0], [5.0, 2.0]])
    found = along_tokens(features_ND, torch.tensor([0, 0, 1]), 2)
    torch.testing.assert_close(found, torch.tensor([[0.6, 1.0], [0.8, 0.0], [1.0, 1.0]]))


def test_channels_one_two_one_times_three_and_four():
    """Scales (3), (4) against (4), (3): nothing along the channels, (0.6 − 0.8)² each along the tokens."""
    channel_D = torch.tensor([1.0, 2.0, 1.0])
    one_ND, other_ND = (torch.tensor(scale)[:, None] * channel_D for scale in ([3.0, 4.0], [4.0, 3.0]))
    rows_N = torch.zeros(2, dtype=torch.long)
    assert float(feature_distance(unit(one_ND), unit(other_ND))) == pytest.approx(0, abs=1e-12)
    divided = [along_tokens(each, rows_N, 1) for each in (one_ND, other_ND)]
    assert float(feature_distance(*divided)) / 3 == pytest.approx(0.04)


@pytest.mark.parametrize("form", ["sound", "published"])
def test_the_penalty_is_the_mean_over_layers_of_what_is_defined(family, form):
    """By hand from the encoder's own stages, before and after a step, with no padding left out but that of texts."""
    numbers = [0, 1, 2]
    with running(family) as run:
        made = prepared(run, "feature_distance", form=form)
        before = seen_of(run, made, numbers)
        tapped = {name: value.detach().clone() for name, value in before.taps.items()}
        step(run)
        seen = seen_of(run, made, numbers)
        layers = []
        for name, now_BTD in seen.taps.items():
            parts, mask_BT = [], seen.batch.mask_of(now_BTD.shape[1])
            if form == "published" and now_BTD.shape[1] == 1:
                continue
            for row in range(len(numbers)):
                axis = 0 if form == "published" else 1
                pair = [
                    torch.nn.functional.normalize(each[row][mask_BT[row]], dim=axis) for each in (now_BTD, tapped[name])
                ]
                squares = (pair[0] - pair[1]).square()
                parts.append(squares.mean(1) if form == "published" else squares.sum(1))
            layers.append(torch.cat(parts).mean())
        assert list(seen.taps)[-1] == "pooled"
        assert float(made.penalty(seen)) == pytest.approx(
            float(torch.stack(layers).detach().mean()), abs=1e-5, rel=1e-3
        )
        assert float(made.penalty(seen)) > 1e-4


def test_cached_live_and_loaded_references_agree(family):
    method = {} if family == "resnet" else {"method": "lora"}
    original = getattr(sets, family)()
    with running(family, Surroundings(original=lambda: nullcontext(original)), **method) as run:
        made = [
            prepared(run, "feature_distance", cached=True),
            prepared(run, "feature_distance", reference="original"),
            *([prepared(run, "feature_distance", cached=False)] if method else []),
        ]
        step(run)
        first, *others = [float(penalty_of(run, each)) for each in made]
        assert first > 1e-3
        assert others == [pytest.approx(first, abs=1e-5)] * (len(made) - 1)


def test_a_live_reference_needs_adapters():
    with running("vit") as run, pytest.raises(SettingError, match="cached=false needs"):
        prepared(run, "feature_distance", cached=False)


def test_a_reference_in_a_file_is_the_one_in_memory(family, tmp_path):
    found = []
    for around in (Surroundings(), Surroundings(cache=tmp_path), Surroundings(cache=tmp_path)):
        with running(family, around, regularizers=({"kind": "distillation"},)) as run:
            made = [prepared(run, "feature_distance", tokens=2), prepared(run, "distillation")]
            step(run)
            found.append([float(penalty_of(run, each)) for each in made])
    assert found[0] == found[1] == found[2]
    assert len(list(tmp_path.glob("*.npy"))) == (3 if family == "bert" else 4)


def test_some_tokens_are_the_same_whatever_stands_beside_them(family):
    with running(family) as run:
        made = prepared(run, "feature_distance", tokens=1, seed=5)
        again = prepared(run, "feature_distance", tokens=1, seed=5)
        other = prepared(run, "feature_distance", tokens=1, seed=6)
        step(run)
        numbers = (0, 3, 5)
        together = float(penalty_of(run, made, numbers))
        apart = [float(penalty_of(run, made, [number])) for number in numbers]
        assert together == pytest.approx(sum(apart) / 3, abs=1e-5)
        assert float(penalty_of(run, made, numbers[::-1])) == pytest.approx(together, abs=1e-5)
        assert float(penalty_of(run, again, numbers)) == together
        assert float(penalty_of(run, other, numbers)) != together
        assert float(penalty_of(run, prepared(run, "feature_distance"), numbers)) != together


def test_many_draws_of_some_places_have_the_mean_of_all():
    with running("resnet", count=4) as run:
        drawn = [prepared(run, "feature_distance", tokens=2, seed=seed) for seed in range(60)]
        whole = prepared(run, "feature_distance")
        step(run)
        mean = sum(float(penalty_of(run, each)) for each in drawn) / len(drawn)
        assert mean == pytest.approx(float(penalty_of(run, whole)), rel=0.1)


def test_layers_are_those_of_the_encoder():
    with running("vit") as run:
        assert list(prepared(run, "feature_distance").taps(run.model)) == ["layers.0", "layers.1", "pooled"]
        assert list(prepared(run, "feature_distance", layers=(1,)).taps(run.model)) == ["layers.1"]
        with pytest.raises(SettingError, match="layers: 3 is none of this model's; it has 0 to 2"):
            prepared(run, "feature_distance", layers=(3,))


def test_anchors_are_held_by_their_weights_and_not_learnt():
    anchors = sets.unlabelled("image", 4)
    with running("vit", anchors=anchors, weights=[0.0, 2.0, 1.0, 1.0]) as run, running("vit", anchors=anchors) as same:
        made, plain = prepared(run, "feature_distance"), prepared(same, "feature_distance")
        step(run)
        step(same)
        for number, weight in zip(range(11, 16), [1.0, 0.0, 2.0, 1.0, 1.0], strict=True):
            expected = weight * float(penalty_of(same, plain, [number]))
            assert float(penalty_of(run, made, [number])) == pytest.approx(expected, abs=1e-6)
        seen = seen_of(run, made, [0, 12, 13])
        assert seen.batch.anchor_B.tolist() == [False, True, True]
        assert seen.losses()[1:].tolist() == [0, 0]
        assert float(seen.losses()[0]) > 0
        assert sum(run.anchors) == 4


# Weights and answers --------------------------------------------------------------------------------------------


def test_l2sp_is_half_the_squared_distance_of_every_trained_tensor(family):
    with running(family) as run:
        made = prepared(run, "l2sp")
        step(run)
        delta = run.trained.delta()
        expected = sum(change.norm() ** 2 for change in delta.changes.values()) / 2
        assert float(penalty_of(run, made)) == pytest.approx(expected, rel=1e-4)
    with running(family, Surroundings(accumulated=delta)) as run:
        far = prepared(run, "l2sp", reference="original")
        assert float(penalty_of(run, far)) == pytest.approx(expected, rel=1e-4)
        assert float(penalty_of(run, prepared(run, "l2sp"))) == 0


def test_fisher_information_is_the_mean_of_squares_of_each_items_gradient(family):
    with running(family, anchors=sets.unlabelled(sets.SIDES[family])) as run:
        found = fisher_of(run, 100)
        name = run.trained.names[-1]
        weight = dict(run.base.named_parameters())[name]
        squares, generator = [], torch.Generator().manual_seed(0)
        for number in range(12):
            loss = run.forward(run.model, run.batch([number])).sampled_losses(generator).sum()
            squares.append(torch.autograd.grad(loss, weight)[0].square())
        torch.testing.assert_close(found[name], torch.stack(squares).mean(0), atol=1e-7, rtol=1e-4)
        assert found.keys() == set(run.trained.names)


def test_fisher_information_is_of_as_many_rows_however_many_anchors_follow(monkeypatch):
    asked, batch = [], ItemRun.batch
    monkeypatch.setattr(ItemRun, "batch", lambda run, numbers: asked.extend(numbers) or batch(run, numbers))
    for anchors in (None, sets.unlabelled("image", 100)):
        with running("vit", anchors=anchors) as run:
            asked.clear()
            fisher_of(run, 6)
            assert asked == [0, 2, 4, 6, 8, 10]


def test_ewc_holds_weights_by_their_information():
    names = []
    with running("resnet") as run:
        names = list(run.trained.names)
        shapes = {name: run.trained.change(name).shape for name in names}
    fisher = {name: torch.rand(shape) for name, shape in shapes.items()}
    with running("resnet", Surroundings(states={"ewc": fisher})) as run:
        made = prepared(run, "ewc")
        step(run)
        expected = sum(float((fisher[name] * run.trained.change(name).square()).sum()) for name in names) / 2
        assert float(penalty_of(run, made)) == pytest.approx(expected, rel=1e-4)


def test_distillation_is_the_divergence_from_what_heads_of_before_said(family):
    """Two heads of other classes: of each item both are held, each over its own classes."""
    with running(family) as probe_run:
        width = probe_run.model.weight_CD.shape[1]
    heads = [random_head(width, ("a", "b", "c"), 1), random_head(width, ("d", "e"), 2)]
    with running(family, known=heads) as run:
        made = prepared(run, "distillation", top_k=10)
        before = seen_of(run, made).pooled_BD.detach()
        assert float(penalty_of(run, made)) == pytest.approx(0, abs=1e-6)
        step(run)
        seen = seen_of(run, made)
        parts = []
        for head in heads:
            old, new = (head.logits(each).log_softmax(-1) for each in (before, seen.pooled_BD.detach()))
            parts.append((old.exp() * (old - new)).sum(-1))
        assert float(made.penalty(seen)) == pytest.approx(float(torch.stack(parts).mean()), abs=1e-6, rel=1e-4)
        assert float(made.penalty(seen)) > 1e-6
        gradient = torch.autograd.grad(made.penalty(seen), run.trained.parameters(), allow_unused=True)
        assert all(torch.isfinite(part).all() for part in gradient if part is not None)


def test_kept_answers_are_those_of_the_heads_that_are_asked(tmp_path):
    with running("vit") as run:
        width = run.model.weight_CD.shape[1]
    for seed in (1, 2):
        head = random_head(width, ("a", "b"), seed)
        with running("vit", Surroundings(cache=tmp_path), known=[head]) as run:
            assert float(penalty_of(run, prepared(run, "distillation"))) == pytest.approx(0, abs=1e-6)


def test_without_heads_of_before_a_linear_probe_is_asked():
    settings = {"regularizers": ({"kind": "distillation"},)}
    with running("vit", **settings) as run, running("vit", head="random", **settings) as other:
        assert torch.equal(run.known[0].weight_CD, run.model.start.weight_CD)
        assert torch.equal(run.known[0].weight_CD, other.known[0].weight_CD)
        assert not torch.equal(other.known[0].weight_CD, other.model.start.weight_CD)


def test_heads_that_write_are_none_of_an_encoder():
    with running("bert") as run, pytest.raises(SettingError, match=r"an encoder has none\. Take feature_distance"):
        prepared(run, "function_vector", heads=((0, 1),))


@pytest.mark.parametrize("name", ["feature_distance", "distillation"])
def test_batches_their_order_and_their_padding_change_nothing(family, name):
    with running(family, regularizers=({"kind": name},)) as run:
        made = prepared(run, name)
        step(run)
        order = sorted(range(12), key=lambda number: run.tokens(number, 99))
        numbers = [order[0], order[-1], order[5]]
        together = seen_of(run, made, numbers)
        if family == "bert":
            batch = together.batch
            assert not batch.mask_BT.all()
            batch.inputs["input_ids"][~batch.mask_BT] = 99
        again = run.forward(run.model, together.batch, made.taps(run.model))
        losses = together.losses()
        torch.testing.assert_close(again.losses(), losses, atol=1e-5, rtol=1e-5)
        assert float(made.penalty(again)) == pytest.approx(float(made.penalty(together)), abs=1e-5)
        turned = seen_of(run, made, numbers[::-1])
        torch.testing.assert_close(turned.losses().flip(0), losses, atol=1e-5, rtol=1e-5)
        assert float(made.penalty(turned)) == pytest.approx(float(made.penalty(together)), abs=1e-5)
        alone = torch.cat([seen_of(run, made, [number]).losses() for number in numbers])
        torch.testing.assert_close(alone, losses, atol=1e-5, rtol=1e-5)


def test_the_penalty_of_a_sequence_pulls_to_the_reference_that_is_asked_for():
    """After a task the previous encoder is where it is, and the original one where it was."""
    original = sets.vit()
    with running("vit") as run:
        step(run)
        delta = run.trained.delta()
    from perdure.editing import applied

    later = sets.vit()
    around = Surroundings(original=lambda: nullcontext(original), accumulated=delta)
    with applied(later.model, delta), running("vit", around, encoder=later) as run:
        near, far = (prepared(run, "feature_distance", reference=which) for which in ("previous", "original"))
        assert float(penalty_of(run, near)) == pytest.approx(0, abs=1e-6)
        assert float(penalty_of(run, far)) > 1e-3
