"""Prompts: what stands in them, where the answer starts, what is kept apart."""

import random

import pytest

from perdure.errors import RequestError
from perdure.requests.functions import Pair
from perdure.vectors.prompts import derange, few_shot_prompts, prompt_of, split

PAIRS = tuple(Pair(input=f"in{n}", output=f"out{n}") for n in range(30))


def test_the_prompt_is_the_published_one_and_the_answer_follows_a_space(tokenizer):
    found = prompt_of(tokenizer, PAIRS[:2], PAIRS[2])
    assert tokenizer.decode(found.ids) == "Q: in0\nA: out0\n\nQ: in1\nA: out1\n\nQ: in2\nA:"
    assert tokenizer.decode(found.answer) == " out2"
    assert found.read == found.ids + found.answer[:-1]


def test_a_token_that_straddles_the_boundary_belongs_to_the_answer():
    class Greedy:
        """Joins a colon with a space that follows."""

        bos_token = eos_token_id = None

        def __call__(self, text):
            ids = []
            while text:
                size = 2 if text.startswith(": ") else 1
                ids.append(hash(text[:size]) % 10_007)
                text = text[size:]
            return {"input_ids": ids}

    found = prompt_of(Greedy(), [], Pair(input="x", output="y"))
    alone = Greedy()("Q: x\nA:")["input_ids"]
    assert found.ids == tuple(alone[:-1])
    assert len(found.answer) == 2


def test_what_is_asked_for_figures_was_never_shown(tokenizer):
    twice = (*PAIRS, Pair(input="in3", output="other"))
    parts = split(twice, 0)
    inputs = [{pair.input for pair in part} for part in (parts.train, parts.validation, parts.test)]
    assert [len(part) for part in inputs] == [15, 6, 9]
    assert not inputs[0] & inputs[1]
    assert not (inputs[0] | inputs[1]) & inputs[2]
    assert sum(map(len, (parts.train, parts.validation, parts.test))) == 31
    assert split(twice, 0) == parts
    assert split(twice, 1) != parts


def test_too_few_different_inputs_are_refused():
    with pytest.raises(RequestError, match="1 different inputs; a function needs at least 20"):
        split([Pair(input="same", output=str(n)) for n in range(50)], 0)


def test_shuffled_prompts_ask_the_same_after_the_same_inputs(tokenizer):
    clean = few_shot_prompts(tokenizer, PAIRS, PAIRS[:4], 5, 7)
    mixed = few_shot_prompts(tokenizer, PAIRS, PAIRS[:4], 5, 7, shuffled=True)
    for one, other, pair in zip(clean, mixed, PAIRS, strict=False):
        first, second = (tokenizer.decode(prompt.ids).split("\n\n") for prompt in (one, other))
        assert first[-1] == second[-1] == f"Q: {pair.input}\nA:"
        assert [line.split("\n")[0] for line in first] == [line.split("\n")[0] for line in second]
        assert pair.input not in [line.split("\n")[0][3:] for line in first[:-1]]
        assert all(a != b for a, b in zip(first[:-1], second[:-1], strict=True))
        assert sorted(line.split("A: ")[1] for line in first[:-1]) == sorted(
            line.split("A: ")[1] for line in second[:-1]
        )
    assert few_shot_prompts(tokenizer, PAIRS, PAIRS[:4], 5, 8) != clean
    assert few_shot_prompts(tokenizer, PAIRS, PAIRS[:1], 0, 7)[0].ids == prompt_of(tokenizer, [], PAIRS[0]).ids


@pytest.mark.parametrize("seed", range(20))
def test_no_input_keeps_its_output_where_that_can_be(seed):
    pairs = [Pair(input=str(n), output="ab"[n % 2]) for n in range(6)]
    mixed = derange(pairs, random.Random(seed))
    assert [pair.input for pair in mixed] == [pair.input for pair in pairs]
    assert sorted(pair.output for pair in mixed) == list("aaabbb")
    kept = sum(a.output == b.output for a, b in zip(pairs, mixed, strict=True))
    assert kept <= 2  # equal outputs cannot always all be moved by one cycle, but most are
    different = [Pair(input=str(n), output=str(n)) for n in range(6)]
    assert all(a.output != b.output for a, b in zip(different, derange(different, random.Random(seed)), strict=True))
    assert derange(different[:1], random.Random(seed)) == different[:1]
