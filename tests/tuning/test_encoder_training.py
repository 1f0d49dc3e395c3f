"""From a labelled set to a change of an encoder and a head: what is trained, what comes back, what is resumed."""

import pytest
import torch
from safetensors.torch import load_file

import encoder_sets as sets
from perdure.deltas import load_delta, save_delta
from perdure.editing import applied
from perdure.errors import IntegrityError, RequestError, SettingError, TuneError
from perdure.tuning.encoders.config import EncoderTuningConfig
from perdure.tuning.encoders.heads import Head, load_head, random_head, save_head
from perdure.tuning.encoders.item_run import ItemRun
from perdure.tuning.encoders.prepared import PreparedImages, prepare_items
from perdure.tuning.encoders.rates import with_rate
from perdure.tuning.encoders.run import check_learnt, interpolated, tune_encoder
from perdure.tuning.regularizer import Surroundings

SHORT = dict(batch_size=4, epochs=2, learning_rate=1e-3, rank=2, alpha=4, schedule="constant", warmup=0)
EVERY = ({"kind": "feature_distance"}, {"kind": "l2sp"}, {"kind": "distillation"}, {"kind": "ewc"})


@pytest.fixture(params=sorted(sets.FAMILIES))
def family(request):
    return request.param


def teach(family, encoder=None, probe=None, around=None, work=None, known=(), **settings):
    encoder = encoder or getattr(sets, family)()
    config = EncoderTuningConfig(**(SHORT | settings))
    probe = probe or sets.probe(sets.SIDES[family])
    return tune_encoder(encoder, probe, config, around or Surroundings(), known=known, work=work)


def tensors(tuned):
    parts = {(name, at): part for name, c in tuned.delta.changes.items() for at, part in enumerate(c.tensors())}
    return parts | {"head": tuned.head.weight_CD, "bias": tuned.head.bias_C}


def equal(one, other):
    first, second = tensors(one), tensors(other)
    return first.keys() == second.keys() and all(torch.equal(part, second[key]) for key, part in first.items())


def losses(tuned):
    return [entry["loss"] for entry in tuned.notes["log"]]


def pooled(encoder, side, items):
    with torch.no_grad():
        return encoder.seen(side, encoder.prepared(side, items)).pooled_BD


def snapshot(encoder):
    model = encoder.model
    return (
        {name: value.clone() for name, value in model.state_dict().items()},
        {name: weight.requires_grad for name, weight in model.named_parameters()},
        {name: (type(part), part.training, getattr(part, "p", None)) for name, part in model.named_modules()},
        {name: len(part._forward_hooks) for name, part in model.named_modules()},
        (model.config.to_dict(), hasattr(model, "peft_config")),
    )


def unchanged(before, after):
    assert before[1:] == after[1:]
    assert before[0].keys() == after[0].keys()
    return all(torch.equal(value, after[0][name]) for name, value in before[0].items())


@pytest.mark.parametrize("head", ["linear_probe", "random"])
def test_the_loss_falls_and_the_change_with_the_head_is_what_was_learnt(family, head):
    encoder, side = getattr(sets, family)(), sets.SIDES[family]
    probe = sets.probe(side)
    tuned = teach(family, encoder, probe, head=head, epochs=12, learning_rate=5e-3)
    assert losses(tuned)[-1] < 0.7 * losses(tuned)[0]
    labels = torch.from_numpy(probe.train.labels_N)
    with applied(encoder.model, tuned.delta):
        after = torch.nn.functional.cross_entropy(
            tuned.head.logits(pooled(encoder, side, probe.train.items[:])), labels
        )
    assert float(after) < losses(tuned)[-1] + 0.05
    assert tuned.notes["rows"] == 12
    assert set(tuned.delta.changes) <= {name for name, _ in encoder.model.named_parameters()}


def test_only_what_a_probe_reads_is_trained():
    names = set(teach("resnet", max_steps=1).delta.changes)
    assert "classifier.1.weight" in {name for name, _ in sets.resnet().model.named_parameters()}
    assert not any(name.startswith("classifier") for name in names)
    assert "resnet.embedder.embedder.normalization.weight" in names
    assert not any("pooler" in name for name in teach("bert", max_steps=1).delta.changes)
    names = set(teach("clip", max_steps=1).delta.changes)
    assert {name.partition(".")[0] for name in names} == {"vision_model", "visual_projection"}


def test_targets_choose_what_is_trained():
    names = set(teach("bert", max_steps=1, targets=("output.dense", "layer.1.attention.self.query.bias")).delta.changes)
    assert len(names) == 2 * 2 * 2 + 1
    adapted = set(teach("vit", max_steps=1, method="lora", targets=("q_proj", "v_proj")).delta.changes)
    assert len(adapted) == 4
    with pytest.raises(SettingError, match=r"nothing that is trained ends in 'q'\. There are: .*q_proj"):
        teach("vit", max_steps=1, method="lora", targets=("q",))


def test_adapters_need_projections():
    with pytest.raises(SettingError, match="ResNetForImageClassification have none; take method=full"):
        teach("resnet", method="lora")


@pytest.mark.parametrize("settings", [{}, {"method": "lora"}, {"regularizers": EVERY, "averaging": {"form": "sound"}}])
def test_the_encoder_comes_back_as_it_was(family, settings):
    if family == "resnet" and settings.get("method") == "lora":
        pytest.skip("no projections")
    encoder = getattr(sets, family)()
    before = snapshot(encoder)
    teach(family, encoder, max_steps=2, **settings)
    assert unchanged(before, snapshot(encoder))


@pytest.mark.parametrize("settings", [{}, {"head": "zero_shot"}])
def test_an_encoder_in_training_mode_comes_back_as_it_was(settings):
    family = "clip" if settings else "resnet"
    encoder = getattr(sets, family)()
    encoder.model.train()
    before = snapshot(encoder)
    teach(family, encoder, max_steps=1, **settings)
    assert encoder.model.training
    assert unchanged(before, snapshot(encoder))


def test_it_comes_back_after_an_error_in_the_middle(family):
    encoder = getattr(sets, family)()
    before = snapshot(encoder)
    with pytest.raises(KeyboardInterrupt):
        teach(family, encoder, around=interrupted_at(1))
    assert unchanged(before, snapshot(encoder))
    with pytest.raises(TuneError, match="lower learning_rate"):
        teach(family, encoder, learning_rate=1e30, epochs=9, head_learning_rate=1e30)
    assert unchanged(before, snapshot(encoder))


def test_statistics_of_batch_norms_stay_and_dropout_is_off():
    """A training mode would move the running means, and dropout would change the loss of the first step."""
    encoder = sets.resnet()
    kept = {name: value.clone() for name, value in encoder.model.named_buffers()}
    seen = []

    def watch(stage, done, _total):
        if stage == "training" and done == 2:
            seen.append(all(torch.equal(value, kept[name]) for name, value in encoder.model.named_buffers()))
            seen.append(any(module.training for module in encoder.model.modules()))

    teach("resnet", encoder, around=Surroundings(progress=watch), max_steps=2)
    assert seen == [True, False]
    bert, probe = sets.bert(), sets.probe("text")
    tuned = teach("bert", bert, probe, batch_size=12, max_steps=1)
    logits = tuned.start.logits(pooled(bert, "text", probe.train.items[:]))
    expected = torch.nn.functional.cross_entropy(logits, torch.from_numpy(probe.train.labels_N))
    assert losses(tuned)[0] == pytest.approx(float(expected), abs=1e-5)


def test_the_same_seed_gives_the_same_bits_and_another_does_not():
    assert equal(teach("vit", seed=3), teach("vit", seed=3))
    assert not equal(teach("vit", seed=3), teach("vit", seed=4))


@pytest.mark.parametrize("kind", ["feature_distance", "l2sp", "distillation", "ewc"])
def test_a_regularizer_without_weight_is_plain_training(family, kind):
    assert equal(teach(family), teach(family, regularizers=({"kind": kind, "weight": 0},)))


def test_accumulated_batches_are_one_batch(family):
    whole, parts = (
        teach(family, batch_size=4, learning_rate=1e-3),
        teach(family, batch_size=1, accumulation=4, learning_rate=1e-3),
    )
    assert losses(whole) == pytest.approx(losses(parts), abs=1e-5)


def test_a_training_that_collapsed_is_no_success():
    with pytest.raises(TuneError, match=r"the training collapsed: .* lower learning_rate to a tenth \(now 3\)"):
        teach("vit", learning_rate=3.0, epochs=6)


@pytest.mark.parametrize(
    ("before", "after", "passes"),
    [
        (0.1, 0.15, True), (0.1, 0.5, True), (0.1, 0.7, False), (0.1, 9.0, False), (0.1, float("nan"), False),
        (0.65, 0.72, True), (0.69, 0.8, True), (0.65, 0.95, False), (5.0, 4.0, True), (5.0, 6.0, False),
    ],
)  # fmt: skip
def test_a_collapse_is_a_loss_near_that_of_a_guess_where_more_was_known(before, after, passes):
    """Of two classes a guess has ln 2 = 0.69."""
    config = EncoderTuningConfig(learning_rate=1.0)
    if passes:
        check_learnt(before, after, 2, config)
        return
    with pytest.raises(TuneError, match="collapsed"):
        check_learnt(before, after, 2, config)


def test_a_learning_rate_that_is_not_given_follows_from_the_structure(monkeypatch):
    rates = {name: with_rate(EncoderTuningConfig(), getattr(sets, name)(), side) for name, side in sets.SIDES.items()}
    found = {name: config.learning_rate for name, config in rates.items()}
    assert found == {"vit": 3e-5, "resnet": 1e-4, "bert": 3e-5, "clip": 3e-5}
    assert with_rate(EncoderTuningConfig(method="lora"), sets.vit(), "image").learning_rate == 2e-4
    assert with_rate(EncoderTuningConfig(learning_rate=7e-6), sets.vit(), "image").learning_rate == 7e-6
    monkeypatch.setattr("perdure.tuning.encoders.rates._SMALL", 1000)
    assert with_rate(EncoderTuningConfig(), sets.vit(), "image").learning_rate == 1e-5


def test_a_warm_up_may_be_a_share_of_all_steps():
    log = teach("vit", epochs=16, batch_size=12, warmup=0.25).notes["log"]
    rates = [entry["learning_rate"] for entry in log]
    assert len(rates) == 16 and rates[0] < rates[2] < 1e-3
    assert rates[4:] == pytest.approx([1e-3] * 12)
    with pytest.raises(ValueError, match=r"2.5 is no number of steps and no share"):
        EncoderTuningConfig(warmup=2.5)


# Heads ----------------------------------------------------------------------------------------------------------


def test_training_starts_from_the_linear_probe(family):
    from sklearn.linear_model import LogisticRegression

    encoder, side = getattr(sets, family)(), sets.SIDES[family]
    probe = sets.probe(side, count=24)
    start = teach(family, encoder, probe, max_steps=1, learning_rate=1e-9).start
    unit = torch.nn.functional.normalize(pooled(encoder, side, probe.train.items[:]), dim=-1)
    spread = float((unit - unit.mean(0)).square().sum(1).mean().sqrt())
    found = []
    for strength in (0.1, 1.0, 10.0, 100.0, 1000.0):
        fitted = LogisticRegression(C=strength, max_iter=5000, tol=1e-8)
        fitted.fit((unit - unit.mean(0)) / spread, probe.train.labels_N)
        expected = torch.from_numpy(fitted.predict_log_proba((unit - unit.mean(0)) / spread)).float()
        found.append(float((start.logits(unit).log_softmax(-1) - expected).abs().max()))
    assert min(found) < 2e-2
    assert start.classes == ("one", "other")


def test_the_classes_names_are_a_head_where_there_are_two_towers():
    encoder, probe = sets.clip(), sets.probe("image")
    start = teach("clip", encoder, probe, head="zero_shot", templates=("a {}", "the {}"), max_steps=1).start
    weights = encoder.class_weights(probe.classes, ("a {}", "the {}"))
    unit = torch.nn.functional.normalize(pooled(encoder, "image", probe.train.items[:]), dim=-1)
    torch.testing.assert_close(start.logits(unit), encoder.logit_scale * unit @ weights.T)
    from perdure.errors import ModelError

    with pytest.raises(ModelError, match="zero-shot needs a tower"):
        teach("vit", head="zero_shot")


def test_a_head_reads_directions_alone():
    head = random_head(6, ("a", "b", "c"), 0)
    pooled_BD = torch.randn(4, 6)
    torch.testing.assert_close(head.logits(pooled_BD), head.logits(pooled_BD * torch.tensor([[3.0], [0.1], [7], [1]])))
    assert float(head.weight_CD.abs().max()) <= 1
    assert torch.equal(head.weight_CD, random_head(6, ("a", "b", "c"), 0).weight_CD)


def test_a_head_survives_its_file(tmp_path):
    head = Head(torch.randn(2, 5), torch.randn(2), ("käse", "b"))
    save_head(head, tmp_path / "one.safetensors")
    save_head(head, tmp_path / "other.safetensors")
    read = load_head(tmp_path / "one.safetensors")
    assert (tmp_path / "one.safetensors").read_bytes() == (tmp_path / "other.safetensors").read_bytes()
    assert torch.equal(read.weight_CD, head.weight_CD)
    assert torch.equal(read.bias_C, head.bias_C)
    assert read.classes == head.classes
    save_head(Head(torch.full((1, 2), torch.nan), torch.zeros(1), ("a",)), tmp_path / "nan.safetensors")
    (tmp_path / "half.safetensors").write_bytes((tmp_path / "one.safetensors").read_bytes()[:90])
    save_delta(teach("vit", max_steps=1).delta, tmp_path / "delta.safetensors")
    for name in ("nan", "half", "delta", "missing"):
        with pytest.raises(IntegrityError):
            load_head(tmp_path / f"{name}.safetensors")
    with pytest.raises(SettingError, match="a head of 2 classes"):
        Head(torch.zeros(3, 4), torch.zeros(3), ("a", "b"))


def test_the_change_survives_its_file(tmp_path):
    tuned = teach("resnet")
    save_delta(tuned.delta, tmp_path / "delta.safetensors")
    read = load_delta(tmp_path / "delta.safetensors")
    assert all(torch.equal(change.dense, read.changes[name].dense) for name, change in tuned.delta.changes.items())
    assert dict(read.notes) == dict(tuned.notes)


# Averaging ------------------------------------------------------------------------------------------------------


def test_wise_ft_averages_encoder_and_head():
    plain, averaged = teach("vit"), teach("vit", averaging={"form": "ratio", "ratio": 0.25})
    assert equal(plain, averaged) is False
    delta, head = interpolated(plain, 0.25)
    for name, change in averaged.delta.changes.items():
        torch.testing.assert_close(change.dense, plain.delta.changes[name].dense * 0.75)
        torch.testing.assert_close(change.dense, delta.changes[name].dense)
    expected = 0.25 * plain.start.weight_CD + 0.75 * plain.head.weight_CD
    torch.testing.assert_close(averaged.head.weight_CD, expected)
    torch.testing.assert_close(head.weight_CD, expected)
    torch.testing.assert_close(interpolated(averaged, 0.0)[1].weight_CD, plain.head.weight_CD)
    assert float(max(c.norm() for c in interpolated(plain, 1.0)[0].changes.values())) == 0
    with pytest.raises(SettingError, match="must lie in"):
        interpolated(plain, 1.5)


def test_the_sound_average_keeps_a_share_of_the_old_weights_and_the_new_head():
    plain = teach("bert", epochs=6)
    averaged = teach("bert", epochs=6, averaging={"form": "sound", "strength": 1e6, "tolerance": 1e6})
    assert averaged.notes["averaging"]["shares"] == [pytest.approx(1, abs=1e-3)]
    assert torch.equal(plain.head.weight_CD, averaged.head.weight_CD)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"averaging": {"form": "fixed"}}, "encoders do not: take ratio"),
        ({"averaging": {"form": "ratio"}, "head": "random"}, "a random one knows nothing"),
        ({"dropout": 0.1}, "dropout"),
        ({"templates": ("a photo",)}, "has no {} where a class's name is written"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, said):
    with pytest.raises(ValueError, match=said):
        EncoderTuningConfig(**settings)


def test_sets_that_do_not_fit_are_refused():
    vit = sets.vit()
    with pytest.raises(RequestError, match="the anchors are texts"):
        tune_encoder(vit, sets.probe("image"), anchors=sets.unlabelled("text"))
    with pytest.raises(SettingError, match="3 weights for 4 anchors"):
        tune_encoder(vit, sets.probe("image"), anchors=sets.unlabelled("image"), anchor_weights=[1, 1, 1])


def test_epochs_count_what_is_learnt_and_anchors_stand_beside_each_batch(monkeypatch):
    packed, real = [], ItemRun.packed
    monkeypatch.setattr(ItemRun, "packed", lambda run, numbers: packed.append(list(numbers)) or real(run, numbers))
    held = EncoderTuningConfig(**SHORT, regularizers=({"kind": "l2sp"}, {"kind": "distillation"}))
    tuned = tune_encoder(sets.vit(), sets.probe("image"), held, anchors=sets.unlabelled("image", 6))
    assert tuned.notes["log"][-1]["step"] == 6  # twelve rows, batches of four, two epochs
    trained = [numbers for numbers in packed if len(numbers) == 5 and min(numbers) < 12]
    assert [sum(number < 12 for number in numbers) for numbers in trained] == [4] * 6
    assert {max(numbers) for numbers in trained} == set(range(12, 18))  # six batches, six anchors, each in its turn
    plain = EncoderTuningConfig(**SHORT, regularizers=({"kind": "l2sp"},))
    beside = tune_encoder(sets.vit(), sets.probe("image"), plain, anchors=sets.unlabelled("image", 6))
    assert equal(beside, tune_encoder(sets.vit(), sets.probe("image"), plain))


# Going on, and caches -------------------------------------------------------------------------------------------


def interrupted_at(step, **more):
    def stop(stage, done, _total):
        if stage == "training" and done == step:
            raise KeyboardInterrupt

    return Surroundings(progress=stop, **more)


@pytest.mark.parametrize(
    "settings",
    [{}, {"method": "lora"}, {"schedule": "linear", "warmup": 1}, {"regularizers": EVERY}, {"head": "random"}],
)
def test_it_goes_on_to_the_same_weights(family, tmp_path, settings):
    """Six steps; a checkpoint after two, an interruption in the fourth, in the middle of the second epoch."""
    if family == "resnet" and settings.get("method") == "lora":
        pytest.skip("no projections")
    whole = teach(family, **settings)
    with pytest.raises(KeyboardInterrupt):
        teach(family, around=interrupted_at(4), work=tmp_path, save_every=2, **settings)
    kept = load_file(tmp_path / "checkpoint-2" / "model.safetensors")
    assert {"weight_CD", "bias_C"} < set(kept)
    assert not any("pooler" in name or "classifier" in name for name in kept)
    started = []
    around = Surroundings(progress=lambda stage, done, _total: started.append((stage, done)))
    assert equal(whole, teach(family, around=around, work=tmp_path, save_every=2, **settings))
    assert ("training", 2) in started
    assert ("training", 1) not in started


def test_kept_targets_and_images_change_nothing(family, tmp_path):
    settings = {"regularizers": EVERY, "max_steps": 3}
    plain = teach(family, **settings)
    around = Surroundings(cache=tmp_path)
    assert equal(plain, teach(family, around=around, **settings))
    files = sorted(path.name for path in tmp_path.iterdir())
    assert len(files) == (3 if family == "bert" else 4)  # features, ids and figures of answers, and images
    assert equal(plain, teach(family, around=around, **settings))
    assert files == sorted(path.name for path in tmp_path.iterdir())
    teach(family, around=around, probe=sets.probe(sets.SIDES[family], count=10), **settings)
    assert len(list(tmp_path.iterdir())) == 2 * len(files)


def test_a_step_opens_no_image():
    probe, opened = sets.probe("image"), []
    inner = probe.train.items.opened
    object.__setattr__(probe.train.items, "opened", lambda handle: opened.append(1) or inner(handle))
    teach("vit", probe=probe, epochs=5)
    assert len(opened) <= len(probe.train) + 1


def test_images_are_prepared_once_for_all_starts(tmp_path, monkeypatch):
    encoder, items = sets.vit(), sets.labelled("image", 5).items
    first = prepare_items(encoder, "image", items, items.digests, cache=tmp_path)
    calls = []
    inner = type(encoder).prepared
    monkeypatch.setattr(
        type(encoder), "prepared", lambda self, side, given: calls.append(len(given)) or inner(self, side, given)
    )
    second = prepare_items(encoder, "image", items, items.digests, cache=tmp_path)
    assert calls == [1]  # for the size alone
    assert isinstance(second, PreparedImages)
    name = second.name
    assert torch.equal(first.batch(range(5))[name], second.batch(range(5))[name])
    assert torch.equal(first.batch([3])[name], encoder.prepared("image", [items[3]])[name])


def test_texts_are_read_as_the_encoder_reads_them():
    encoder, items = sets.bert(), sets.labelled("text", 40).items
    found = prepare_items(encoder, "text", items, items.digests)
    for numbers in ([0, 3], [38, 7, 39]):
        expected = encoder.prepared("text", [items[number] for number in numbers])
        batch = found.batch(numbers)
        assert set(batch) == {*expected, "counts"}
        assert all(torch.equal(batch[name], value) for name, value in expected.items())
        assert torch.equal(batch["counts"], encoder.reading["text"].mask(expected))


def test_an_encoder_in_half_precision_learns():
    encoder = sets.bert()
    encoder.model.to(torch.bfloat16)
    before = snapshot(encoder)
    for method in ("full", "lora"):
        tuned = teach("bert", encoder, epochs=8, method=method, regularizers=({"kind": "feature_distance"},))
        assert losses(tuned)[-1] < losses(tuned)[0]
        assert all(part.dtype == torch.float32 for change in tuned.delta.changes.values() for part in change.tensors())
    assert unchanged(before, snapshot(encoder))
