"""The benchmark of encoders on a tiny one: rows by their names, resuming, and the figures of the table."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from bench.encoders.methods import METHODS, Row, rows_named
from bench.encoders.running import BY_NAME, Bench, run_row
from bench.encoders.sets import drawn, open_encoder, validated
from bench.encoders.tables import accuracy_of, by_name_of, delta_of, in_order, picture, table
from bench.encoders.two_towers import ridge, two_towers

import encoder_sets as sets
from perdure.measuring.concept_answers import ConceptSettings
from perdure.tuning.encoders.config import EncoderTuningConfig

QUICK = {"epochs": 1, "batch_size": 4, "learning_rate": 1e-2}


@pytest.fixture
def bench(tmp_path):
    probes = [sets.probe("image", 12), replace(sets.probe("image", 20), name="more")]
    return Bench(sets.vit(), "tiny", probes, QUICK, 12, tmp_path, ConceptSettings(drift_items=0))


def result(row, hits, before, after, seed=0):
    cells = {"mine": {"before": [1, 1], "after": [0, 0]}, "other": {"before": before, "after": after}}
    cpu = {"preparing": 1.0, "training": 2.0}
    return {"encoder": "e", "target": "mine", "row": row, "seed": seed, "hits": hits, "sets": cells, "cpu": cpu}


def test_rows_by_their_names():
    assert [row.name for row in rows_named("naive,ldifs:3,l2sp")] == [
        "naive",
        "ldifs:3",
        "l2sp:0.01",
        "l2sp:0.1",
        "l2sp:1",
    ]
    assert rows_named("wise_ft:0.5")[0].share == 0.5
    assert rows_named("ldifs:0.5")[0].share is None
    for name in ("naiv", "naive:3"):
        with pytest.raises(SystemExit, match="no row"):
            rows_named(name)
    for row in rows_named(",".join(METHODS)):
        EncoderTuningConfig(**QUICK, **row.settings)


def test_figures_of_a_worked_case():
    """Of four items seed 0 loses two and gains one, seed 1 loses one: −1/4 each, and −1/4 in the mean."""
    runs = [
        result("ldifs:3", [1, 1, 0, 1], [1, 1, 0, 1], [0, 0, 1, 1]),
        result("ldifs:3", [1, 0, 0, 1], [1, 1, 0, 1], [1, 0, 0, 1], seed=1),
    ]
    assert accuracy_of(runs)[0] == 5 / 8
    value, low, high = delta_of(runs)
    assert value == -1 / 4
    items = [-0.5, -1.0, 0.5, 0.0]
    variance = sum((each + 0.25) ** 2 for each in items) / 3 / 4
    assert (high - low) / 2 == pytest.approx(1.959964 * variance**0.5)
    naive = result("naive", [1, 1, 1, 1], [1, 1, 1, 1], [0, 0, 1, 1])
    shown = table([*runs, naive])
    assert "tuned on mine, probed on other" in shown
    assert shown.index("| naive |") < shown.index("| ldifs:3 | 2 |")
    assert "| 50% | 1 | ×1.00 |" in shown  # a quarter lost where the naive one loses a half


def test_a_row_is_run_once_and_shares_need_no_training(bench, monkeypatch, tmp_path):
    target = bench.probes[0]
    first = run_row(bench, Row("lp_ft"), target, 0)
    assert len(first["hits"]) == len(target.test)
    assert set(first["sets"]) == {"halves", "more"}
    held = run_row(bench, Row("ldifs", 3.0), target, 0)
    assert held["key"] != first["key"]

    def never(*_args, **_more):
        raise AssertionError("trained again")

    monkeypatch.setattr("bench.encoders.running.tune_encoder", never)
    shared = run_row(bench, Row("wise_ft", 1.0), target, 0)
    assert shared["sets"]["more"]["after"] == shared["sets"]["more"]["before"]
    assert run_row(bench, Row("wise_ft", 0.0), target, 0)["hits"] == first["hits"]
    assert run_row(bench, Row("lp_ft"), target, 0) == first
    picture(in_order([first, held, shared]), tmp_path / "picture.png")
    assert (tmp_path / "picture.png").stat().st_size > 1000


def test_sets_are_drawn_by_the_seed_and_tested_alike():
    whole = sets.probe("text", 30)
    one, other, again = (drawn(whole, 10, 4, seed) for seed in (0, 1, 0))
    assert (len(one.train), len(one.test)) == (10, 4)
    assert one.digest == again.digest
    assert one.train.digest != other.train.digest
    assert one.test.digest == other.test.digest


def test_weights_that_read_bgr_less_a_mean_are_given_rgb(tmp_path):
    """Keras' ResNet-50: what it would see of an image, by hand, against what the opened encoder gives."""
    whole = sets.resnet().model
    whole.save_pretrained(tmp_path)
    encoder = open_encoder(str(tmp_path), 16)
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3)).astype(np.uint8)
    bgr = pixels[..., ::-1].astype(np.float32) - np.array([103.939, 116.779, 123.68], np.float32)
    with torch.no_grad():
        expected = whole.resnet(torch.from_numpy(bgr.copy()).permute(2, 0, 1)[None]).pooler_output.flatten(1)
        rules = encoder.reading["image"].processor
        rules.size = {"shortest_edge": 16}
        found = encoder.seen("image", encoder.prepared("image", [pixels])).pooled_BD
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-4)


def test_sentences_are_mapped_onto_the_rows_of_a_classifier():
    """X = I, Y = 2·I, penalty 1: M = (I + I)⁻¹·2·I = I; without a penalty M = 2·I."""
    eye = torch.eye(3)
    assert torch.equal(ridge(eye, 2 * eye, 1.0), torch.eye(3, dtype=torch.float64))
    assert torch.equal(ridge(eye, 2 * eye, 0.0), 2 * torch.eye(3, dtype=torch.float64))


def test_two_towers_from_an_image_and_a_text_encoder():
    image, text = sets.resnet(), sets.bert()
    pictures = sets.probe("image", 4).train.items
    weight_ND = torch.randn(5, image.seen("image", image.prepared("image", pictures[:1])).pooled_BD.shape[1])
    made = two_towers(image, text, weight_ND, ["a", "b", "c", "d", "e"], pictures)
    assert made.sides == ("image", "text")
    centred = made.seen("image", made.prepared("image", pictures)).pooled_BD
    assert centred.mean(0).abs().max() < 1e-5 and centred.std() > 1e-3
    assert made.class_weights(["a", "b"]).shape == (2, weight_ND.shape[1])


def test_answers_by_name_have_a_table_of_their_own():
    runs = [result("naive", [1, 1], [1, 1], [1, 0]), result("ldifs:3", [1, 1], [1, 1], [1, 1])]
    for run, after in zip(runs, ([0, 0], [1, 0]), strict=True):
        run["sets"][f"other{BY_NAME}"] = {"before": [1, 0], "after": after}
    assert by_name_of(runs[:1], "other")[0] == -0.5
    assert delta_of(runs[:1])[0] == -0.5
    shown = table(runs)
    assert "By the names of classes, other: 50.0% before" in shown
    assert "probed on other |" not in shown and shown.count("| ldifs:3 |") == 2


def test_settings_are_chosen_on_training_items():
    probe = sets.probe("image", 20)
    chosen = validated(probe)
    digests = [set(part.items.digests) for part in (chosen.train, chosen.test, probe.test)]
    assert digests[0] | digests[1] == set(probe.train.items.digests)
    assert not digests[0] & digests[1]
    assert len(chosen.test) == sum(max(1, n // 5) for n in np.bincount(probe.train.labels_N) if n)


def test_two_towers_learn_a_set_and_are_asked_by_name(tmp_path):
    image, text = sets.resnet(), sets.bert()
    probes = [sets.probe("image", 12), replace(sets.probe("image", 20), name="more")]
    width = image.seen("image", image.prepared("image", probes[0].train.items[:1])).pooled_BD.shape[1]
    made = two_towers(image, text, torch.randn(5, width), ["a", "b", "c", "d", "e"], probes[0].train.items)
    bench = Bench(made, "tiny", probes, QUICK, 12, tmp_path, ConceptSettings(drift_items=0))
    found = run_row(bench, rows_named("ldifs:0.3")[0], probes[0], 0)
    assert f"more{BY_NAME}" in found["sets"] and len(found["hits"]) == len(probes[0].test)
