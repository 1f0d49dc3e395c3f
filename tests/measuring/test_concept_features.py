"""Encoders that are probed: features are read once and are the same however they are read; planted losses are found."""

import numpy as np
import pytest
import torch

import encoder_sample as sample
from perdure.errors import ModelError, RequestError
from perdure.measuring.concept_answers import ConceptSettings, compare_probings, probe_encoder
from perdure.measuring.concept_drift import drift_of_stages
from perdure.measuring.concept_features import Reading, spaced

SETTINGS = ConceptSettings(drift_items=24, places=4)
LETTERS, COLOURS = sample.letters(), sample.colours()


class Forwards:
    """Counts the forward passes of an encoder."""

    def __init__(self, encoder):
        self.count = 0
        real = encoder.seen

        def seen(*given, **more):
            self.count += 1
            return real(*given, **more)

        encoder.seen = seen


@pytest.mark.parametrize(("made", "given"), [(sample.bert, LETTERS), (sample.decoder, LETTERS), (sample.clip, COLOURS)])
def test_padding_and_the_order_of_batches_change_nothing(made, given):
    encoder, items = made(), given.test.items
    one = Reading(encoder, batch=1).pooled(given.side, items, "content").astype(np.float32)
    many = Reading(encoder, batch=17).pooled(given.side, items, "content").astype(np.float32)
    turned = Reading(encoder, batch=17).pooled(given.side, items.select(range(len(items) - 1, -1, -1)), "turned")
    for other in (many, turned[::-1].astype(np.float32)):
        assert np.linalg.norm(other - one) <= 1e-5 * np.linalg.norm(one) + 2.0**-11 * np.abs(one).max()
    fresh = [encoder.seen(given.side, encoder.prepared(given.side, list(items[:n]))).pooled_BD[0] for n in (1, 20)]
    assert torch.allclose(fresh[0], fresh[1], atol=1e-5)


@pytest.mark.parametrize(("made", "given"), [(sample.bert, LETTERS), (sample.clip, COLOURS)])
def test_what_is_kept_is_what_is_read_and_is_found_without_a_forward_pass(made, given, tmp_path):
    plain = probe_encoder(made(), [given], SETTINGS)
    first = probe_encoder(made(), [given], SETTINGS, folder=tmp_path)
    again = made()
    counted = Forwards(again)
    second = probe_encoder(again, [given], SETTINGS, folder=tmp_path)
    assert counted.count == 0
    assert plain.answers == first.answers == second.answers
    for name, kept in plain.stages[given.digest].items():
        assert np.array_equal(kept, second.stages[given.digest][name])
    other = made(seed=1)
    counted = Forwards(other)
    assert probe_encoder(other, [given], SETTINGS, folder=tmp_path).answers != first.answers
    assert counted.count > 0
    assert not list(tmp_path.glob(".*"))


def test_features_are_kept_in_half_precision_and_read_in_place(tmp_path):
    features = Reading(sample.bert(), tmp_path).pooled("text", LETTERS.test.items, "content")
    assert isinstance(features, np.memmap)
    assert (features.dtype, features.shape) == (np.float16, (80, 32))
    assert [path.stat().st_size for path in tmp_path.iterdir()] == [128 + 80 * 32 * 2]


def test_what_an_encoder_ceased_to_tell_apart_is_found_and_the_rest_is_kept():
    before, after = sample.bert(), sample.bert()
    words = after.model.embeddings.word_embeddings.weight.data
    ids = {letter: after.reading["text"].tokenizer(letter)["input_ids"][-1] for letter in "efgh"}
    words[ids["g"]], words[ids["h"]] = words[ids["e"]], words[ids["f"]]
    untouched = sample.letters(("ijk", "lmn", "opq"), name="untouched")
    probes = [LETTERS, untouched]
    found = compare_probings(*(probe_encoder(each, probes, SETTINGS) for each in (before, after)), probes=probes)
    lost, kept = found.sets
    assert lost.linear.before.value > 0.9
    assert {given.name for _, given in found.classes if given.worse} & {"of ef", "of gh"}
    assert not {given.name for _, given in found.classes if given.worse} - {"of ef", "of gh"}
    assert lost.linear.difference.high < 0
    assert {item.label for item in lost.lost} <= {"of ef", "of gh"}
    assert all(set(item.name) <= set("efgh") and not item.picture for item in lost.lost)
    assert kept.linear.difference.value == 0
    assert kept.linear.difference.low < 0 < kept.linear.difference.high
    assert all(stage.distance.value == 0 for stage in kept.drift)
    assert all(stage.distance.value > 0 for stage in lost.drift)
    assert found.linear.difference.value == pytest.approx(lost.linear.difference.value / 2)


def test_images_are_probed_with_their_names_where_there_is_a_text_tower_and_losses_shown_as_pictures():
    before, after = sample.clip(), sample.clip(seed=1)
    first, second = (probe_encoder(each, [COLOURS], SETTINGS) for each in (before, after))
    answers = first.answers.sets[COLOURS.digest]
    assert np.mean(np.equal(answers.linear, answers.labels)) > 0.9
    assert len(answers.zero_shot) == 60
    blind = first.answers.model_copy(
        update={"sets": {COLOURS.digest: answers.model_copy(update={"linear": (0,) * 60})}}
    )
    found = compare_probings(first, type(second)(blind, second.stages), probes=[COLOURS])
    assert {item.label for item in found.sets[0].lost} == {"green", "blue"}
    assert all(item.picture.startswith("data:image/jpeg;base64,") for item in found.sets[0].lost)
    assert max(len(item.picture) for item in found.sets[0].lost) < 4000
    assert found.zero_shot is not None


def test_the_drift_of_a_stage_is_the_squared_distance_of_unit_features():
    old = {"one": np.array([[[3.0, 0.0]], [[0.0, 3.0]]], np.float16)}
    new = {"one": np.array([[[0.0, 5.0]], [[0.0, 9.0]]], np.float16)}
    [stage] = drift_of_stages(old, new)
    assert stage.distance.value == pytest.approx(1.0)  # 2 and 0
    assert drift_of_stages(old, old)[0].distance.value == 0
    with pytest.raises(ModelError, match="other stages"):
        drift_of_stages(old, {"two": old["one"]})


def test_the_sides_of_encoder_and_sets_must_fit():
    with pytest.raises(RequestError, match="'sample' holds images; this encoder reads texts"):
        probe_encoder(sample.bert(), [COLOURS])
    with pytest.raises(RequestError, match="are the same"):
        probe_encoder(sample.bert(), [LETTERS, LETTERS])


def test_features_that_are_not_finite_are_refused_and_leave_no_file(tmp_path):
    broken = sample.bert()
    broken.model.encoder.layer[1].output.dense.weight.data[0] = float("inf")
    with pytest.raises(ModelError, match="not finite"):
        probe_encoder(broken, [LETTERS], folder=tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_modes_of_the_encoder_are_its_own_again_and_dropout_is_off():
    encoder = sample.bert()
    quiet = probe_encoder(encoder, [LETTERS], SETTINGS)
    encoder.model.train()
    encoder.model.pooler.eval()
    assert probe_encoder(encoder, [LETTERS], SETTINGS).answers == quiet.answers
    assert encoder.model.training
    assert not encoder.model.pooler.training


def test_large_sets_are_sampled_class_by_class():
    few = ConceptSettings(train_items=24, test_items=12, drift_items=0)
    found = probe_encoder(sample.bert(), [LETTERS], few)
    answers = found.answers.sets[LETTERS.digest]
    assert answers.train == 24
    assert [answers.labels.count(label) for label in range(4)] == [3] * 4
    assert found.stages == {}
    assert found.answers.settings != SETTINGS.digest


def test_five_stages_are_spread_over_the_depth():
    names = [str(number) for number in range(12)]
    assert spaced(names) == ["1", "4", "6", "9", "11"]
    assert spaced(names[:3]) == names[:3]
