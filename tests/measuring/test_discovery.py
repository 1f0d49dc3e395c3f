"""Concepts without labels: planted ones are found, named, counted, kept; and whether they are still there is seen."""

import numpy as np
import pytest

import encoder_letters as sample
from encoder_sample import SIDE, bert, clip, decoder
from perdure.content import digest_bytes
from perdure.errors import IntegrityError, RequestError, SettingError, UnknownNameError
from perdure.measuring.clusters import NOWHERE, adjusted_rand
from perdure.measuring.discovery import DiscoverySettings, built_in_words, find_concepts, key_of
from perdure.measuring.statistics import paired_difference
from perdure.measuring.watched import Marks
from perdure.measuring.watched_files import in_force, load_found, named, save_found, write_marks
from perdure.measuring.watching import (
    WatchSettings,
    build_watched,
    distances,
    watch_encoder,
    watched_items,
    weighted_difference,
)
from perdure.requests.concept_items import Items
from perdure.requests.concepts import Unlabelled

QUICK = DiscoverySettings(counts=(2, 4, 8), draws=2, least=10)
WATCH = WatchSettings(folds=3, strengths=(10.0,), neighbours=5)
ROWS = sample.texts()
DATA = sample.unlabelled(ROWS)


@pytest.fixture(scope="module")
def found():
    return find_concepts(bert(), DATA, QUICK, origin=("letters.txt", "tiny"))


def group_of(found, letters):
    """The concept whose nearest example holds these letters."""
    return next(each for each in found.card.concepts if set(each.examples[0]) <= set(letters))


def test_planted_concepts_and_their_number_are_found(found):
    assert [each.clusters for each in found.card.tried] == [2, 4, 8]
    assert len(found.card.concepts) == 4
    inside = found.assigned_N != NOWHERE
    assert inside.mean() > 0.9
    assert adjusted_rand(found.assigned_N[inside], sample.labels(ROWS)[inside]) == 1.0


def test_concepts_are_named_by_their_nearest_items_and_counted(found):
    for place, each in enumerate(found.card.concepts):
        assert each.id == f"c{place + 1}"
        assert each.name == each.examples[0]
        assert each.items == (found.assigned_N == place).sum()
    assert sum(each.share for each in found.card.concepts) + found.card.unknown == pytest.approx(1)


def test_what_occurs_often_comes_first():
    weights = [50.0 if label == 2 else 1.0 for _, label in ROWS]
    counted = find_concepts(bert(), sample.unlabelled(ROWS, weights), QUICK)
    assert set(counted.card.concepts[0].examples[0]) <= set("ef")
    assert counted.card.concepts[0].share > 0.9


def test_traffic_that_is_like_nothing_seen_is_unknown():
    asked = sample.unlabelled([*sample.texts(each=6, groups=("gh",), seed=9), ("?!?!?!?!?!", -1), ("0101010101", -1)])
    counted = find_concepts(bert(), DATA, QUICK, traffic=asked)
    first = counted.card.concepts[0]
    assert set(first.examples[0]) <= set("gh")
    assert first.share == pytest.approx(6 / 8, abs=0.13)
    assert counted.card.unknown >= 2 / 8
    assert counted.card.counted == "letters"


def test_a_decoder_finds_them_as_well():
    found = find_concepts(decoder(), DATA, QUICK.model_copy(update={"counts": (4,)}))
    inside = found.assigned_N != NOWHERE
    assert adjusted_rand(found.assigned_N[inside], sample.labels(ROWS)[inside]) > 0.9


def test_texts_may_be_named_by_words_of_a_list():
    words = ["abab", "cdcd", "efef", "ghgh"]
    found = find_concepts(bert(), DATA, QUICK, words=words)
    for each in found.card.concepts:
        assert set(each.name) == set(each.examples[0])
        assert each.words[0] == each.name


def test_images_of_a_two_tower_encoder_get_words_and_pictures():
    drawn = np.random.default_rng(0)
    pictures = []
    for number in range(40):
        picture = drawn.integers(0, 60, (SIDE, SIDE, 3))
        picture[..., number % 2] += 180
        pictures.append(picture.astype(np.uint8))
    items = Items(
        tuple(pictures), tuple(f"{n}.png" for n in range(40)),
        tuple(digest_bytes(picture.tobytes()) for picture in pictures), lambda handle: handle,
    )  # fmt: skip
    data = Unlabelled("colours", "image", items, np.ones(40))
    found = find_concepts(clip(), data, DiscoverySettings(counts=(2,), draws=1, least=10))
    assert len({each.name for each in found.card.concepts}) == len(found.card.concepts) == 2
    for each in found.card.concepts:
        assert each.words[0] in built_in_words()
        assert each.pictures[0].startswith("data:image/jpeg;base64,")
        assert {int(name.split(".")[0]) % 2 for name in each.examples} in ({0}, {1})


def test_too_few_items_and_the_other_side_are_refused():
    with pytest.raises(RequestError, match="has 12 different items"):
        find_concepts(bert(), sample.unlabelled(ROWS[:12]), QUICK)
    with pytest.raises(RequestError, match="this encoder reads texts"):
        find_concepts(bert(), Unlabelled("photos", "image", DATA.items, DATA.weights_N), QUICK)


def test_finding_twice_gives_the_same_and_anything_else_another_key(found):
    again = find_concepts(bert(), DATA, QUICK, origin=("letters.txt", "tiny"))
    assert again.card == found.card
    assert np.array_equal(again.groups.centres_CD, found.groups.centres_CD)
    other = QUICK.model_copy(update={"seed": 1})
    keys = [key_of(bert(), DATA, QUICK), key_of(bert(1), DATA, QUICK), key_of(bert(), DATA, other)]
    assert keys[0] == found.card.key
    assert len(set(keys)) == 3


def test_concepts_come_back_from_their_files_and_damage_is_seen(found, tmp_path):
    card = save_found(found, tmp_path)
    back = load_found(tmp_path, found.card.key)
    assert back.card == found.card
    assert np.array_equal(back.assigned_N, found.assigned_N)
    assert back.groups.centres_CD == pytest.approx(found.groups.centres_CD, abs=1e-6)
    with pytest.raises(SettingError, match="perdure concepts find"):
        in_force(tmp_path)
    write_marks(tmp_path, Marks(key=found.card.key, weights={"c1": 3.0}))
    assert in_force(tmp_path) == (found.card, Marks(key=found.card.key, weights={"c1": 3.0}))
    arrays = card.with_suffix(".safetensors")
    arrays.write_bytes(arrays.read_bytes()[:-40])
    with pytest.raises(IntegrityError, match="no readable set of concepts"):
        load_found(tmp_path, found.card.key)
    card.write_text("{}")
    with pytest.raises(IntegrityError):
        in_force(tmp_path)


def test_items_of_protected_concepts_weigh_more_where_features_are_held(found):
    weights = found.weights(Marks(key=found.card.key, weights={"c2": 5.0}))
    assert len(weights) == len(DATA)
    assert {weight for weight, group in zip(weights, found.assigned_N, strict=True) if group == 1} == {5.0}
    assert {weight for weight, group in zip(weights, found.assigned_N, strict=True) if group != 1} == {1.0}
    assert set(found.weights(None)) == set(found.weights(Marks(key="other", weights={"c2": 5.0}))) == {1.0}


def test_a_concept_is_named_by_id_name_or_a_part_of_it(found):
    first = found.card.concepts[0]
    assert (
        named(found.card, "C1") is named(found.card, first.name.upper()) is named(found.card, first.name[:6]) is first
    )
    with pytest.raises(UnknownNameError, match=r"c1 \("):
        named(found.card, "warranty")


# What is still recognised


@pytest.fixture(scope="module")
def before(found):
    return watch_encoder(bert(), found, DATA, WATCH)


def test_an_unchanged_encoder_recognises_what_it_did(found, before):
    same = build_watched(found.card, before, watch_encoder(bert(), found, DATA, WATCH))
    assert same.traffic.value == 0
    assert not same.worse
    for each in same.concepts:
        assert each.linear.before.value > 0.9
        assert each.drift.value == 0


def test_a_concept_that_is_lost_is_found_and_others_are_not_accused(found, before):
    deaf = watch_encoder(sample.deaf(bert()), found, DATA, WATCH)
    lost = group_of(found, "ab").id
    measures = build_watched(found.card, before, deaf, marks=Marks(key=found.card.key, weights={lost: 3.0}))
    by_id = {each.concept.id: each for each in measures.concepts}
    assert lost in {each.concept.id for each in measures.worse}
    assert {each.concept.id for each in measures.worse} <= {lost, group_of(found, "cd").id}
    assert by_id[lost].linear.difference.high < -0.1
    assert by_id[lost].drift.value > 0.05
    assert by_id[group_of(found, "ef").id].drift.value == 0
    assert (by_id[lost].protected, by_id[lost].weight) == (True, 3.0)
    assert [each.concept.id for each in measures.protected] == [lost]
    assert measures.traffic.high < 0


def test_what_a_rotation_moves_is_still_recognised(found, before):
    """Recoverable by a probe fitted anew: features that turned as a whole have lost nothing."""
    drawn = np.random.default_rng(0)
    turn, _ = np.linalg.qr(drawn.normal(size=(before.features_ND.shape[1],) * 2))
    from perdure.measuring.watching import cross_validated

    turned = (before.features_ND.astype(float) @ turn).astype(np.float16)
    assert min(distances(before.features_ND, turned)) > 0.5
    linear, _ = cross_validated(turned, np.array(before.answers.labels), WATCH)
    assert (linear == np.array(before.answers.linear)).mean() > 0.97


def test_marks_of_other_concepts_protect_nothing(found, before):
    measures = build_watched(found.card, before, before, marks=Marks(key="other", weights={"c1": 3.0}))
    assert not measures.protected


def test_kept_answers_are_taken_and_those_of_other_concepts_are_not(found, before):
    said = before.answers.model_copy(update={"linear": tuple(0 for _ in before.answers.linear)})
    assert watch_encoder(bert(), found, DATA, WATCH, known=said).answers is said
    other = said.model_copy(update={"key": "other"})
    assert watch_encoder(bert(), found, DATA, WATCH, known=other).answers == before.answers
    otherwise = watch_encoder(bert(), found, DATA, WATCH.model_copy(update={"seed": 1}))
    with pytest.raises(RequestError, match="watch them alike"):
        build_watched(found.card, before, otherwise)


def test_other_data_is_refused(found):
    with pytest.raises(RequestError, match=r"not the data in which the concepts were found \(letters\.txt\)"):
        watch_encoder(bert(), found, sample.unlabelled(ROWS[:-1]), WATCH)


def test_items_are_drawn_from_every_concept_and_none_from_nowhere():
    assigned = np.array([0] * 50 + [1] * 3 + [NOWHERE] * 20)
    chosen = watched_items(assigned, 10, 0)
    assert np.bincount(assigned[chosen]).tolist() == [10, 3]
    assert np.array_equal(chosen, watched_items(assigned, 10, 0))


def test_weighted_differences_are_the_plain_ones_where_weights_are_equal():
    before, after = [True] * 8 + [False] * 4, [True] * 5 + [False] * 6 + [True]
    plain, found = paired_difference(before, after), weighted_difference(before, after, [0.5] * 12)
    assert (found.value, found.low, found.high) == pytest.approx((plain.value, plain.low, plain.high))
    # Two items, three to one: the first is lost, so 3/4 is lost; Kish's n is 16/10.
    uneven = weighted_difference([True, True], [False, True], [3.0, 1.0])
    assert uneven.value == pytest.approx(-0.75)
    up, down = 1 / 3.6, (0.75 * 1.6 + 1) / 3.6
    reach = 1.959963984540054 * ((up + down - (up - down) ** 2) / 3.6) ** 0.5
    assert uneven.low == pytest.approx(max(-1.0, up - down - reach))
    assert uneven.high == pytest.approx(up - down + reach)
    with pytest.raises(SettingError):
        weighted_difference([True], [True], [0.0])


def test_distances_by_hand():
    old = np.array([[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1]], np.float16)
    new = np.array([[2, 2, 2, 2], [-1, 1, -1, 1], [1, -1, -1, 1]], np.float16)
    assert distances(old, new) == pytest.approx([0.0, 4.0, 2.0], abs=1e-6)
    with pytest.raises(RequestError, match="other encoders"):
        distances(old, new[:, :2])
