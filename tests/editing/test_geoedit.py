"""GeoEdit on tiny models: what stays is the same bits, what moves has forgotten before it learns."""

import importlib

import pytest
import torch

from perdure.editing import geometry
from perdure.editing.geoedit import GeoEditConfig, geoedit
from perdure.editing.neurons import neurons_of
from perdure.models import layout_of
from perdure.requests import Fact

FACTS = [
    Fact(subject="ab", prompt="ab is", target_new="X", target_true="Y"),
    Fact(subject="cd", prompt="cd is", target_new="Z", target_true="W"),
]
module = importlib.import_module("perdure.editing.geoedit")
FAST = {"steps": 4, "learning_rate": 3e-3, "stop_loss": 0, "learning_steps": 3, "learnt_loss": 0}


def numbers(text):
    for part in text.split(",") if text else ():
        first, _, last = part.partition("-")
        yield from range(int(first), int(last or first) + 1)


@pytest.mark.parametrize("kind", ["unit", "row"])
def test_neurons_that_are_not_in_conflict_stay_bit_for_bit_through_the_learning(family, kind):
    model, tokenizer = family
    delta = geoedit(model, tokenizer, FACTS, GeoEditConfig(neuron=kind, **FAST))
    groups = neurons_of(layout_of(model), range(4), kind)
    assert len(delta.notes["last_losses"]) == 3
    moved = 0
    for group, note in zip(groups, delta.notes["neurons"], strict=True):
        rows_ND = group.rows({matrix.name: delta.changes[matrix.name].value() for matrix in group.matrices})
        stay = torch.ones(group.count, dtype=torch.bool)
        stay[list(numbers(note["cases"].get("obtuse", "")))] = False
        assert torch.count_nonzero(rows_ND[stay]) == 0
        moved += int((~stay).sum())
        assert rows_ND[~stay].abs().sum() > 0 or not (~stay).any()
        assert not note["merges"]
    assert moved > 10


def test_learning_on_goes_on_until_the_answers_are_learnt(tiny):
    model, tokenizer = tiny
    config = GeoEditConfig(**{**FAST, "learning_steps": 30, "learnt_loss": 1.0})
    losses = geoedit(model, tokenizer, FACTS, config).notes["last_losses"]
    assert losses[-1] < 1.0
    assert all(loss >= 1.0 for loss in losses[:-1])


def test_a_fact_without_an_old_answer_is_in_neither_pair_of_trainings(tiny, monkeypatch):
    model, tokenizer = tiny
    seen = {}
    real = module.train

    def watched(model, tokenizer, pairs, *given, stage, **more):
        seen[stage] = [prompt for prompt, _ in pairs]
        return real(model, tokenizer, pairs, *given, stage=stage, **more)

    monkeypatch.setattr(module, "train", watched)
    monkeypatch.setattr(module, "old_answers", lambda *_: ["", "W"])
    geoedit(model, tokenizer, FACTS, GeoEditConfig(steps=2, learning_steps=1, width=0, least=0))
    assert seen["learning new answers"] == seen["learning old answers"] == ["cd is"]
    assert seen["learning once the old is forgotten"] == ["ab is", "cd is"]


def test_without_learning_the_change_is_the_formula(tiny):
    """−λ τ_old + τ_new for neurons in conflict, scaled so that it does what the whole would have done."""
    model, tokenizer = tiny
    plain = {**FAST, "learning_steps": 0, "width": 0, "least": 0}
    scaled = geoedit(model, tokenizer, FACTS, GeoEditConfig(**plain))
    bare = geoedit(model, tokenizer, FACTS, GeoEditConfig(**plain, rescaled=False))
    groups = neurons_of(layout_of(model), range(4), "unit")
    for group, note in zip(groups, scaled.notes["neurons"], strict=True):
        assert note["gain"] >= 1
        for matrix in group.matrices:
            first, second = (delta.changes[matrix.name].value() for delta in (bare, scaled))
            torch.testing.assert_close(second, note["gain"] * first, rtol=1e-3, atol=1e-7)
    assert bare.notes["last_losses"] == []


def test_the_published_rules_merge_and_take_what_is_given(tiny):
    model, tokenizer = tiny
    config = GeoEditConfig(
        **{**FAST, "learning_steps": 0}, forgetting=0.3, acute="merge", width=0.5, rescaled=False, least=0
    )
    notes = geoedit(model, tokenizer, FACTS, config).notes["neurons"]
    assert all(note["merges"] and note["shared"] == 0 and note["gain"] == 1 for note in notes)


def test_the_shared_part_is_the_least_squares_share_and_never_negative():
    old_ND = torch.randn(6, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rest_ND = torch.randn(6, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    rest_ND -= (rest_ND * old_ND).sum() / old_ND.square().sum() * old_ND
    assert geometry.shared_part(old_ND, 0.4 * old_ND + rest_ND) == pytest.approx(0.4, abs=1e-12)
    assert geometry.shared_part(old_ND, rest_ND - old_ND) == 0
    assert geometry.shared_part(0 * old_ND, rest_ND) == 0


def test_the_takeover_is_the_share_of_the_squared_norm_and_bounded():
    update_ND = torch.tensor([[3.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
    moving = torch.tensor([True, False, False])
    assert geometry.takeover(update_ND, moving) == pytest.approx(10 / 9)
    assert geometry.takeover(update_ND, ~moving) == 4
    assert geometry.takeover(update_ND, moving & False) == 1
    assert geometry.takeover(update_ND, torch.ones(3, dtype=torch.bool)) == 1


def test_acute_neurons_are_zero_without_a_share():
    old_ND, new_ND = torch.ones(2, 3), torch.full((2, 3), 2.0)
    case_N = torch.tensor([geometry.Case.ACUTE, geometry.Case.OBTUSE], dtype=torch.int8)
    fused_ND = geometry.fuse(old_ND, new_ND, case_N, None, 0.5)
    assert torch.equal(fused_ND, torch.tensor([[0.0] * 3, [1.5] * 3]))


def test_places_cover_what_belongs_to_a_neuron(family):
    model, _ = family
    for kind in ("unit", "row"):
        for group in neurons_of(layout_of(model), [1], kind):
            chosen_N = torch.zeros(group.count, dtype=torch.bool)
            chosen_N[[0, 5]] = True
            shapes = {matrix.name: matrix.module.weight for matrix in group.matrices}
            marked = {
                name: group.places(name, chosen_N).expand(weight.shape).float() for name, weight in shapes.items()
            }
            rows_ND = group.rows(marked)
            assert torch.equal(rows_ND.bool().all(1), chosen_N)
            assert torch.equal(rows_ND.bool().any(1), chosen_N)
