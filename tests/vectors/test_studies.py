"""A function studied: whether it tells anything, its heads, its vector put back; on a network that can do it."""

import pytest
import torch

import tiny as models
from perdure.errors import RequestError
from perdure.models import layout_of
from perdure.requests.functions import Function, Pair
from perdure.vectors import (
    VectorConfig,
    activation_shift,
    judge,
    random_like,
    rank_correlation,
    similarity,
    universal_heads,
)
from perdure.vectors.files import read_traits, write_traits
from perdure.vectors.injection import answered, injected, sweep
from perdure.vectors.last_token import LastToken
from perdure.vectors.prompts import Prompt
from perdure.vectors.studies import Evidence, Traits, middle_layers, study, weigh

FUNCTION = Function("first", tuple(Pair(input=f"{a}{b}", output=a) for a in "abcde" for b in "fghij"))
SMALL = VectorConfig(shots=2, clean=6, shuffled=5, prefilter=None, heads=2, validation=3, asked=4)


def told(name="one", seed=0, reason=""):
    generator = torch.Generator().manual_seed(seed)
    return Traits(
        name,
        Evidence((True, False), (False, False), reason),
        torch.randn(4, 4, 8, generator=generator),
        torch.randn(4, 4, generator=generator, dtype=torch.float64),
    )


@pytest.mark.parametrize(
    ("clean", "shuffled", "tells"),
    [
        ([True] * 25, [False] * 25, True),
        ([True] * 25, [True] * 25, False),
        ([True] * 4, [False] * 4, False),
        ([True] * 18 + [False] * 7, [True] * 9 + [False] * 16, True),
        ([True] * 14 + [False] * 11, [True] * 9 + [False] * 16, False),
    ],
)
def test_a_function_tells_something_when_intact_prompts_surely_do_better(clean, shuffled, tells):
    found = weigh(clean, shuffled, 0.1)
    assert (not found.reason) == tells
    if not tells:
        assert f"{sum(clean) / len(clean):.0%} of the time" in found.reason


def test_a_function_that_tells_nothing_has_no_effects(tiny):
    found = study(*tiny, FUNCTION, SMALL)
    assert found.evidence.reason
    assert torch.count_nonzero(found.effect_LH) == 0


@pytest.mark.parametrize(("clean", "shuffled"), [(4, 9), (9, 4)])
def test_intact_and_shuffled_prompts_are_compared_on_what_both_ask(tiny, clean, shuffled):
    config = VectorConfig(shots=2, clean=clean, shuffled=shuffled)
    evidence = study(*tiny, FUNCTION, config).evidence
    assert (len(evidence.clean), len(evidence.shuffled)) == (4, 4)


def test_a_study_is_the_same_every_time(tiny, monkeypatch):
    monkeypatch.setattr("perdure.vectors.studies.weigh", lambda a, b, _margin: Evidence(tuple(a), tuple(b), ""))
    first, second = study(*tiny, FUNCTION, SMALL), study(*tiny, FUNCTION, SMALL)
    assert torch.equal(first.effect_LH, second.effect_LH)
    assert torch.equal(first.mean_LHK, second.mean_LHK)
    assert first.effect_LH.shape == (4, 4)


def test_universal_heads_are_those_of_the_functions_that_tell_something():
    one, two, silent = told(seed=1), told(seed=2), told(seed=3, reason="no")
    heads = universal_heads([one, two, silent], 3)
    mean_LH = (one.effect_LH + two.effect_LH) / 2
    assert [float(mean_LH[head]) for head in heads] == sorted(mean_LH.flatten().tolist(), reverse=True)[:3]
    with pytest.raises(RequestError, match="none of 1 functions shows"):
        universal_heads([silent], 3)


def test_a_vector_that_is_the_answers_own_direction_is_judged_as_such(tokenizer):
    """The head of this network reads the hidden state as it is: adding an embedding makes its token the answer."""
    model = models.llama()
    layout = layout_of(model)
    for block in range(4):
        layout.mlp_out[block].module.weight.data.zero_()
        layout.attention_out[block].module.weight.data.zero_()
    space = tokenizer(" ")["input_ids"][-1]  # every answer starts with it
    vector_D = 50 * model.get_input_embeddings().weight.data[space].double()
    found = judge(model, tokenizer, FUNCTION, vector_D, SMALL)
    assert set(found) == {"zero-shot", "few-shot", "shuffled"}
    for judged in found.values():
        assert judged.sweep.layers == (1, 2)
        assert judged.sweep.shares == (1.0, 1.0)
        assert judged.vector == (True,) * 4
        assert sum(judged.random) < 4
        assert sum(judged.plain) < 4
    assert judge(model, tokenizer, FUNCTION, vector_D, SMALL, kinds=["few-shot"], layers=[3])["few-shot"].layer == 3


def test_a_sweep_takes_the_middle_of_the_best_layers(tiny, monkeypatch):
    model, _ = tiny
    columns = torch.tensor([[0, 1, 1, 1, 0], [0, 1, 1, 1, 1]], dtype=torch.bool)
    monkeypatch.setattr("perdure.vectors.injection.answers_with", lambda *_: columns)
    found = sweep(model, [], torch.zeros(32), [4, 5, 6, 7])
    assert (found.best, found.plain, found.shares) == (5, 0.0, (1.0, 1.0, 1.0, 0.5))


def test_middle_layers():
    assert list(middle_layers(30)) == list(range(7, 23))
    assert list(middle_layers(1)) == [0]
    assert list(middle_layers(4)) == [1, 2]


def test_an_injection_works_at_every_token_and_ends_with_its_block(family):
    model, _ = family
    ids, vector_D = torch.tensor([[5, 9, 3, 7]]), torch.randn(32, generator=torch.Generator().manual_seed(0))
    plain = model(ids).logits
    with injected(model, vector_D, 2):
        assert all(not torch.allclose(model(ids).logits[0, at], plain[0, at]) for at in range(4))
    assert torch.equal(model(ids).logits, plain)


def test_answered_says_what_the_model_says(family):
    model, _ = family
    prompts = [Prompt((5, 9, 3, 7), (1,)), Prompt((8, 2), (1,)), Prompt((6, 6, 6), (1,))]
    right = [Prompt(prompt.ids, (int(LastToken(model, prompt).chosen_N[0]),)) for prompt in prompts]
    assert answered(model, [right[0], prompts[1], right[2]], tokens=4) == [True, right[1].answer == (1,), True]


def test_random_vectors_have_the_norm_and_a_seed():
    vector_D = torch.arange(32.0)
    first = random_like(vector_D, 1)
    assert float(first.norm()) == pytest.approx(float(vector_D.norm()))
    assert torch.equal(first, random_like(vector_D, 1))
    assert abs(similarity(first, random_like(vector_D, 2))) < 0.6


def test_similarity_shift_and_ranks_by_hand():
    assert similarity(torch.tensor([1.0, 0]), torch.tensor([1.0, 1])) == pytest.approx(0.5**0.5)
    assert similarity(torch.zeros(2), torch.ones(2)) == 0
    before = torch.tensor([[[3.0, 4.0], [1.0, 0.0]]])
    after = torch.tensor([[[3.0, 9.0], [1.0, 0.0]]])
    assert activation_shift(before, after).tolist() == [[1.0, 0.0]]
    assert rank_correlation(torch.tensor([1.0, 2, 3, 4]), torch.tensor([10.0, 30, 20, 40])) == pytest.approx(0.8)
    assert rank_correlation(torch.tensor([1.0, 1, 2]), torch.tensor([5.0, 5, 9])) == pytest.approx(1)
    assert rank_correlation(torch.ones(3), torch.tensor([1.0, 2, 3])) == 0


def test_traits_come_back_from_their_file_bit_for_bit(tmp_path):
    given = told(seed=4)
    write_traits(tmp_path / "a.safetensors", given, {"model": "abc"})
    found, about = read_traits(tmp_path / "a.safetensors")
    assert about == {"model": "abc"}
    assert (found.name, found.evidence) == (given.name, given.evidence)
    assert torch.equal(found.mean_LHK, given.mean_LHK)
    assert torch.equal(found.effect_LH, given.effect_LH)
