import pytest
import torch
from pydantic import ValidationError

import tiny as models
from perdure.errors import UnknownNameError
from perdure.measuring import Outcomes, Suite, measure_retention
from perdure.measuring.branching import _KEEP_TO_MASK, greedy_choices, keeps_to_mask
from perdure.measuring.retention import (
    FactsConfig,
    FunctionsConfig,
    InstructionsConfig,
    follows,
    measure_functions,
)
from perdure.measuring.suites import Instruction, KnownFact
from perdure.models import complete
from perdure.models.continuing import continue_rows
from perdure.models.tokens import encode, encode_pair
from perdure.registry import measures
from perdure.requests.functions import Pair

PAIRS = tuple(Pair(input=word, output=word[:2]) for word in ("abc", "bcde", "cd", "defg", "ef", "fgh"))
SUITE = Suite(
    id="tiny",
    functions={"begin": PAIRS, "again": PAIRS[:5]},
    facts=(
        KnownFact(subject="X", prompt="X lies in", answer="Y", paraphrases=("The land of X is", "X is of")),
        KnownFact(subject="Longer", prompt="Longer names lie in the", answer="sea"),
    ),
    instructions=(
        Instruction(instruction="Say yes.", answers=("yes",), match="exact"),
        Instruction(instruction="Say a colour.", answers=("red", "blue")),
    ),
)


def _greedy(model, ids, count):
    """Token after token, without cache, mask or batch."""
    ids = list(ids)
    for _ in range(count):
        ids.append(int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
    return ids[-count:]


def _rows(tokenizer):
    shown = "Q: a\nA: b\n\nQ: cc\nA: d\n\n"
    return [encode_pair(tokenizer, f"{shown}Q: {pair.input}\nA:", pair.output) for pair in PAIRS]


def test_rows_side_by_side_choose_what_each_row_chooses_alone(family):
    model, tokenizer = family
    rows = _rows(tokenizer)
    assert keeps_to_mask(model)
    chosen = greedy_choices(model, rows)
    for (ids, start), choices in zip(rows, chosen, strict=True):
        logits = model(input_ids=torch.tensor([ids])).logits[0]
        assert choices == logits[start - 1 :].argmax(1).tolist()
    assert greedy_choices(model, rows, tokens=60) == chosen


def test_a_model_that_ignores_the_mask_is_given_each_row_whole(tiny):
    model, tokenizer = tiny
    rows = _rows(tokenizer)
    expected = greedy_choices(model, rows)
    _KEEP_TO_MASK[model] = False
    assert greedy_choices(model, rows) == expected
    assert greedy_choices(model, rows, tokens=60) == expected


def test_a_leaking_mask_is_noticed(tiny):
    model, _ = tiny
    plain = model.base_model.forward
    model.base_model.forward = lambda **inputs: plain(**{**inputs, "attention_mask": None})
    assert not keeps_to_mask(model)


def test_continuations_are_greedy_whatever_the_batch(family):
    model, tokenizer = family
    prompts = ["A common start, then one", "A common start, then another thing", "A common start"]
    rows = [encode(tokenizer, prompt) for prompt in prompts]
    expected = []
    for row in rows:
        ids = _greedy(model, row, 6)
        expected.append(tokenizer.decode(ids[: ids.index(1)] if 1 in ids else ids, skip_special_tokens=True))
    for tokens in (1, 60, 2048):
        found = continue_rows(model, tokenizer, rows, lambda _row, _text: False, max_new_tokens=6, tokens=tokens)
        assert found == expected
    assert found == complete(model, tokenizer, prompts, max_new_tokens=6)


WINDOWED = pytest.mark.parametrize("made", [models.mistral, models.gpt_neo], ids=["mistral", "gpt_neo"])
BEGINNING = [5, 6, 7, 8, 9, 10, 11, 12]


@WINDOWED
@pytest.mark.parametrize("length", [2, 20])
def test_padding_takes_up_no_room_in_a_window(made, length):
    """A common beginning is read once for all only where the longest row and its answer fit into the window."""
    model, tokenizer = made(), models.tokenizer()
    rows = [[*BEGINNING, 20], [*BEGINNING, *range(30, 30 + length)], [40, 41]]
    for asked in (rows[:2], rows):
        found = continue_rows(model, tokenizer, asked, lambda _row, _text: False, max_new_tokens=5)
        for row, text in zip(asked, found, strict=True):
            ids = _greedy(model, row, 5)
            ids = ids[: ids.index(1)] if 1 in ids else ids
            assert text == tokenizer.decode(ids, skip_special_tokens=True)


@WINDOWED
@pytest.mark.parametrize("length", [3, 14])
def test_rows_side_by_side_keep_within_a_window(made, length):
    model = made()
    rows = [([*BEGINNING, *range(20 + i, 20 + i + length)], 9) for i in range(8)]
    for tokens in (1, 30, 2048):
        for (ids, start), choices in zip(rows, greedy_choices(model, rows, tokens=tokens), strict=True):
            assert choices == model(torch.tensor([ids])).logits[0, start - 1 :].argmax(-1).tolist()


def test_a_long_beginning_is_held_for_few_rows_at_once(tiny):
    """All rows of a batch hold its keys and values: 1,000 tokens of 200 rows are 100 GB in Llama-2-7B."""
    model, tokenizer = tiny
    rows = [encode(tokenizer, "x" * 80 + end) for end in "abcdef"]
    sizes = []
    whole = continue_rows(model, tokenizer, rows, lambda *_: False, max_new_tokens=3)
    found = continue_rows(model, tokenizer, rows, lambda *_: False, max_new_tokens=3, tokens=20, on_done=sizes.append)
    assert (found, sizes) == (whole, [2, 2, 2])


def test_a_row_that_has_said_enough_stops_and_the_others_go_on(tiny):
    model, tokenizer = tiny
    rows = [encode(tokenizer, text) for text in ("one", "another", "three")]
    whole = continue_rows(model, tokenizer, rows, lambda _row, _text: False, max_new_tokens=5)
    asked = []

    def enough(row, _text):
        asked.append(row)
        return row == 1

    found = continue_rows(model, tokenizer, rows, enough, max_new_tokens=5)
    assert [found[0], found[2]] == [whole[0], whole[2]]
    assert sorted(asked) == [0] * 4 + [1] + [2] * 4
    assert continue_rows(model, tokenizer, [], lambda _row, _text: False, max_new_tokens=5) == []


def test_every_item_is_asked_once_and_the_batch_changes_nothing(tiny):
    model, tokenizer = tiny
    seen = []
    found = measure_retention(model, tokenizer, SUITE, lambda *step: seen.append(step))
    assert {part: len(answers) for part, answers in found.items()} == {
        "functions.begin": 6, "functions.again": 5, "facts.prompt": 2, "facts.paraphrase": 2, "instructions": 2,
    }  # fmt: skip
    assert [answer.item for answer in found["functions.begin"]] == [pair.input for pair in PAIRS]
    assert ("in-context functions", 11, 11) in seen and ("facts of the world", 4, 4) in seen
    small = {
        "functions": FunctionsConfig(batch_tokens=1),
        "facts": FactsConfig(batch_tokens=1),
        "instructions": InstructionsConfig(batch_tokens=1),
    }
    assert measure_retention(model, tokenizer, SUITE, settings=small) == found
    kept = Outcomes(suite_id=SUITE.id, retention=found)
    assert Outcomes.model_validate_json(kept.model_dump_json()) == kept


def test_a_function_is_right_exactly_when_greedy_generation_writes_it(tiny):
    model, tokenizer = tiny
    asked, shots = PAIRS[:3], PAIRS[3:]
    prompt = "".join(f"Q: {shot.input}\nA: {shot.output}\n\n" for shot in shots) + "Q: abc\nA:"
    ids = _greedy(model, encode(tokenizer, prompt), 2)
    (first, *_) = measure_functions(model, tokenizer, SUITE, FunctionsConfig())["functions.begin"]
    assert first.item == asked[0].input
    assert not first.ok and first.written.rstrip("…") == tokenizer.decode(ids[:1], skip_special_tokens=True).strip()


def test_a_model_that_copies_is_right(tiny, monkeypatch):
    model, tokenizer = tiny
    perfect = lambda _model, rows, **_: [[*ids[start:], tokenizer.encode("\n")[0]] for ids, start in rows]  # noqa: E731
    monkeypatch.setattr("perdure.measuring.retention.greedy_choices", perfect)
    assert all(answer.ok for answer in measure_functions(model, tokenizer, SUITE, FunctionsConfig())["functions.begin"])
    longer = lambda _model, rows, **_: [[*ids[start:], tokenizer.encode("s")[0]] for ids, start in rows]  # noqa: E731
    monkeypatch.setattr("perdure.measuring.retention.greedy_choices", longer)
    answers = measure_functions(model, tokenizer, SUITE, FunctionsConfig())["functions.begin"]
    assert not any(answer.ok for answer in answers) and answers[0].written == "abs…"


def test_shots_of_one_half_stand_before_questions_of_the_other(tiny, monkeypatch):
    model, tokenizer = tiny
    texts = []

    def spy(_model, rows, **_):
        texts.extend(tokenizer.decode(ids) for ids, _ in rows)
        return [[*ids[start:], 1] for ids, start in rows]

    monkeypatch.setattr("perdure.measuring.retention.greedy_choices", spy)
    measure_functions(model, tokenizer, Suite(id="x", functions={"begin": PAIRS}), FunctionsConfig(shots=2))
    assert texts[0] == "Q: defg\nA: de\n\nQ: ef\nA: ef\n\nQ: abc\nA: ab"
    assert texts[3] == "Q: abc\nA: ab\n\nQ: bcde\nA: bc\n\nQ: defg\nA: de"


def test_replies_are_judged_without_case_punctuation_and_articles():
    exact, loose = SUITE.instructions
    assert follows(exact, " Yes!") and not follows(exact, "yes, sir")
    assert follows(loose, "It is the Blue one.") and not follows(loose, "bluish")


def test_the_parts_are_registered_with_their_settings():
    assert {"functions", "facts", "instructions"} <= {measure.name for measure in measures}
    assert measures.get("functions").config().shots == 10
    with pytest.raises(ValidationError):
        FunctionsConfig(shots=0)


def test_settings_of_an_unknown_measure_are_refused(tiny):
    with pytest.raises(UnknownNameError, match="fact"):
        measure_retention(*tiny, SUITE, settings={"fact": FactsConfig()})
