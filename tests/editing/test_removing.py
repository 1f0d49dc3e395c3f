"""One fact taken out of an edit: what is known of the others is used again, and gives the edit without it."""

import pytest
import torch

from perdure.deltas import Delta
from perdure.editing import Moments, RomeConfig, Surroundings, memit, rome
from perdure.editing.memit import MemitConfig
from perdure.editing.method import batch_spans, edit_in_batches
from perdure.editing.reusing import NEAR, find_or_reuse, is_near, unshared
from perdure.editing.solving import memit_update, protect
from perdure.editing.statistics import SecondMoment
from perdure.editing.values import Values
from perdure.models import layout_of
from perdure.registry import editors
from perdure.requests import Fact

TEXTS = ["The twin city of Lyon is Beirut, and the Nile is in Egypt. " * 3, "Ada speaks Danish to her friends. " * 5]
FACTS = (
    Fact(subject="Lyon", prompt="The twin city of Lyon is", target_new="Manila"),
    Fact(subject="Ada", prompt="Ada speaks", target_new="Dutch"),
    Fact(subject="Orlan", prompt="The colour of Orlan is", target_new="red"),
)
QUICK = {"values": {"steps": 5, "clamp": 4}, "contexts": 1}


def rand(*shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(shape)))


def around(model, tokenizer, **more):
    return Surroundings(moments=Moments(lambda: (model, tokenizer), TEXTS), **more)


def same_bits(first, second):
    return first.changes.keys() == second.changes.keys() and all(
        torch.equal(a, b)
        for name, change in first.changes.items()
        for a, b in zip(change.tensors(), second.changes[name].tensors(), strict=True)
    )


@pytest.fixture
def no_search_after(monkeypatch):
    return lambda: monkeypatch.setattr(
        "perdure.editing.values._Search.run", lambda *_: pytest.fail("a value was searched for")
    )


@pytest.mark.parametrize("earlier", [0, 3])
def test_one_layer_without_a_fact_is_the_closed_form_without_its_columns(earlier):
    """R₋ⱼ K₋ⱼᵀ (λC + K_p K_pᵀ + K₋ⱼ K₋ⱼᵀ)⁻¹, and it is not the old change with the fact's term left out."""
    size, outputs, facts, gone = 12, 5, 4, 1
    text = rand(size, 300)
    moment = SecondMoment(text @ text.T / 300, 300)
    residual_ON, key_IN, previous_IM = rand(outputs, facts), rand(size, facts), rand(size, earlier)
    kept = [fact for fact in range(facts) if fact != gone]
    solve = protect(moment, 2.0, previous_IM)
    left_ON, right_NI = memit_update(residual_ON[:, kept], key_IN[:, kept], solve)
    bracket = 2.0 * moment.ridged + previous_IM @ previous_IM.T + key_IN[:, kept] @ key_IN[:, kept].T
    direct = residual_ON[:, kept] @ key_IN[:, kept].T @ torch.linalg.inv(bracket)
    torch.testing.assert_close(left_ON @ right_NI, direct, rtol=1e-9, atol=1e-11)
    old_left, old_right = memit_update(residual_ON, key_IN, solve)
    assert (old_left[:, kept] @ old_right[kept] - direct).norm() > 0.05 * direct.norm()


def test_an_edit_of_one_layer_without_a_fact_is_that_closed_form(tiny, no_search_after):
    """On a model: keys and residuals of one batch at one layer do not depend on the other facts."""
    model, tokenizer = tiny
    config = MemitConfig(**QUICK, layers=(1,), moment_weight=3.0)
    whole = memit(model, tokenizer, FACTS, config, around(model, tokenizer))
    no_search_after()
    left = memit(model, tokenizer, FACTS[:2], config, around(model, tokenizer, values=whole.values))
    name = layout_of(model).mlp_out[1].name
    moment = Moments(lambda: (model, tokenizer), TEXTS).of([1])[1]
    key_IN, residual_ON = whole.keys[name].double()[:, :2], whole.changes[name].low_rank.left.double()[:, :2]
    direct = residual_ON @ key_IN.T @ torch.linalg.inv(3.0 * moment.ridged + key_IN @ key_IN.T)
    torch.testing.assert_close(left.changes[name].value(), direct, rtol=1e-4, atol=1e-6 * float(direct.abs().max()))
    assert left.values.keys() == {fact.id for fact in FACTS[:2]}
    assert all(torch.equal(value, whole.values[fact]) for fact, value in left.values.items())


@pytest.mark.parametrize("name", ["memit", "alphaedit", "rome"])
def test_with_nothing_taken_out_the_same_bits_come_back_without_a_search(tiny, name, no_search_after):
    model, tokenizer = tiny
    method = editors.get(name)
    config = method.config.model_validate(QUICK)
    whole = edit_in_batches(model, tokenizer, FACTS, method, config, batch_size=2, around=around(model, tokenizer))
    no_search_after()
    again = edit_in_batches(
        model, tokenizer, FACTS, method, config, batch_size=[2, 1], around=around(model, tokenizer, values=whole.values)
    )
    assert same_bits(whole, again)
    assert all(torch.equal(whole.keys[matrix], key_IN) for matrix, key_IN in again.keys.items())


def test_rome_without_a_fact_sets_the_others_to_their_values(tiny, no_search_after):
    model, tokenizer = tiny
    config = RomeConfig(**QUICK)
    whole = rome(model, tokenizer, FACTS, config, around(model, tokenizer))
    values = {fact.id: whole.values[fact.id] for fact in FACTS[1:]}
    left = rome(model, tokenizer, FACTS[1:], config, around(model, tokenizer, values=values))
    (name,) = left.changes
    assert left.changes[name].low_rank.rank == 2
    assert left.keys[name].shape[1] == 2
    torch.testing.assert_close(left.keys[name], whole.keys[name][:, 1:])  # no edit changes what ROME's keys read


def found(places, width=3, shift=7.0):
    return Values(torch.full((len(places), width), shift), (0.5,) * len(places), (4,) * len(places))


def test_a_shift_is_used_where_its_state_is_near_and_searched_elsewhere():
    shift = torch.tensor([0.0, 2.0, 0.0])
    states_ND = torch.tensor([[1.0, 0, 0], [1.0, 0, 0], [5.0, 0, 0]])
    near = torch.stack([torch.tensor([1.0 + NEAR, 0, 0]), shift])
    far = torch.stack([torch.tensor([1.0 + 3 * NEAR, 0, 0]), shift])
    asked = []

    def search(places):
        asked.extend(places)
        return found(places)

    shifts = find_or_reuse(FACTS, range(3), states_ND, {FACTS[0].id: near, FACTS[1].id: far}, search)
    assert asked == [1, 2]
    torch.testing.assert_close(shifts.shift, torch.stack([shift, torch.full((3,), 7.0), torch.full((3,), 7.0)]))
    assert shifts.losses == (None, 0.5, 0.5)
    assert shifts.steps == (0, 4, 4)
    assert torch.equal(shifts.values[FACTS[0].id], near)  # where it was found, so that small moves do not add up
    torch.testing.assert_close(shifts.values[FACTS[2].id], torch.stack([states_ND[2], torch.full((3,), 7.0)]))


def test_facts_of_one_site_are_searched_for_together_unless_they_know_the_same_shift():
    states_ND = torch.tensor([[1.0, 0, 0]] * 3)
    value, other = (torch.stack([states_ND[0], torch.tensor([0.0, length, 0.0])]) for length in (2.0, 3.0))
    asked = []

    def search(places):
        asked.append(places)
        return found(places)

    ids = [fact.id for fact in FACTS]
    sites = [0, 1, 0]
    for known in ({ids[0]: value, ids[1]: value}, {ids[0]: value, ids[1]: value, ids[2]: other}):
        shifts = find_or_reuse(FACTS, sites, states_ND, known, search)
        assert torch.equal(shifts.shift[0], shifts.shift[2]) and torch.equal(shifts.shift[1], value[1])
    assert asked == [[0, 2], [0, 2]]
    shifts = find_or_reuse(FACTS, sites, states_ND, dict.fromkeys(ids, value), search)
    assert len(asked) == 2 and torch.equal(shifts.shift, value[1].expand(3, 3))


def test_a_value_found_for_several_facts_is_not_known_once_one_of_them_is_gone():
    lyon, ada, orlan = FACTS
    eats = Fact(subject="Ada", prompt="Ada eats", target_new="rice")
    values = {fact.id: torch.zeros(2, 3) for fact in (lyon, ada)}
    assert unshared(values, (lyon, ada, orlan), [eats]).keys() == {lyon.id}
    assert unshared(values, (ada, orlan), [lyon]).keys() == {ada.id}


def test_a_fact_that_needed_no_shift_is_searched_again_once_its_state_moved():
    known = torch.zeros(2, 3)
    assert is_near(torch.zeros(3), known)
    assert not is_near(torch.tensor([1e-3, 0, 0]), known)


def test_a_state_that_is_another_altogether_is_not_near_however_long_the_shift():
    known = torch.stack([torch.tensor([0.0, 10.0, 0.0]), torch.tensor([0.0, 0.0, 1000.0])])
    assert is_near(torch.tensor([0.9, 10.0, 0.0]), known)
    assert not is_near(torch.tensor([5.0, 10.0, 0.0]), known)


@pytest.mark.parametrize(
    ("count", "size", "spans"),
    [
        (5, 2, [(0, 2), (2, 4), (4, 5)]),
        (3, 100, [(0, 3)]),
        (0, 4, []),
        (5, [1, 0, 4], [(0, 1), (1, 5)]),
    ],
)
def test_batches_by_one_size_or_by_all_sizes(count, size, spans):
    assert [(span.start, span.stop) for span in batch_spans(count, size)] == spans


def test_values_are_kept_with_the_delta(tmp_path):
    from perdure.deltas import load_delta, save_delta

    delta = Delta(values={"a" * 64: torch.randn(2, 5), "0/" + "b" * 64: torch.randn(2, 5)})
    save_delta(delta, tmp_path / "delta.safetensors")
    back = load_delta(tmp_path / "delta.safetensors")
    assert back.values.keys() == delta.values.keys()
    assert all(torch.equal(back.values[fact], value) for fact, value in delta.values.items())
    assert (Delta(values={"x": torch.zeros(2, 1)}) + delta).values.keys() == {"x", *delta.values}
