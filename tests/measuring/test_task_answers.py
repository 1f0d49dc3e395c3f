"""Free answers to the questions of a task: how they are judged, and where writing ends."""

import pytest
import torch

import tiny as models
from perdure.measuring.task_answers import answer_task, judged, rouge_l
from perdure.models.continuing import continue_rows
from perdure.requests.tasks import Example, Message


def example(question, *answers):
    messages = (Message(role="user", content=question), Message(role="assistant", content=answers[0]))
    return Example(messages=messages, plain=True, references=answers)


def writes(monkeypatch, tokenizer, text):
    """Whatever the model is asked, it writes this, token by token."""
    ids = tokenizer(text)["input_ids"]

    def logits(_model, rows_B, _columns, past_key_values=None, attention_mask=None, **_inputs):
        written = logits.calls
        logits.calls += 1
        chosen = torch.zeros(len(rows_B), models.VOCAB)
        chosen[:, ids[written]] = 1
        return chosen

    logits.calls = 0
    monkeypatch.setattr("perdure.models.continuing.logits_at", logits)


@pytest.mark.parametrize(
    ("text", "reference", "found"),
    [
        ("the cat sat", "the cat sat down", 6 / 7),
        ("It is on-line, 24/7.", "it is on line 24 7", 1),
        ("Пётр Великий", "пётр великий", 1),
        ("Пётр Первый", "Пётр Великий", 0.5),
        ("东京都", "東京都", 2 / 3),
        ("수도는 서울", "수도는 파리", 0.5),
        ("déjà lu", "déjà vu", 0.5),
        ("हिन्दी", "हिन्दी", 1),
        ("+", "+", 1),
        ("-", "+", 0),
        ("", "one", 0),
    ],
)
def test_rouge_l_counts_words_of_every_script(text, reference, found):
    assert rouge_l(text, reference) == pytest.approx(found)


def test_a_right_answer_has_the_whole_of_rouge_l():
    for answer in ("Ada Lovelace", "東京", "Київ", "👍"):
        assert (judged(answer, ("other", answer)).exact, judged(answer, ("other", answer)).rouge) == (True, 1.0)


@pytest.mark.parametrize(
    ("written", "right", "found"),
    [
        ("Rome\n\nQ: and", "Rome", "Rome"),
        ("\n\nRome\n\nQ: and", "Rome", "Rome"),
        ("Dear Ada,\n\nyes.</s>", "Dear Ada,\n\nyes.", "Dear Ada,\n\nyes."),
    ],
)
def test_a_blank_line_ends_an_answer_unless_a_right_one_has_it(tiny, monkeypatch, written, right, found):
    writes(monkeypatch, tiny[1], written)
    (answer,) = answer_task(*tiny, [example("Where?", right)])
    assert (answer.text, answer.exact) == (found, True)


def test_an_answer_ends_where_the_models_positions_do(family):
    """The longest right answer says how much may be written, also after the longest question."""
    model, tokenizer = family
    texts = [answer.text for answer in answer_task(model, tokenizer, [example("x" * 505, "a"), example("y", "b" * 30)])]
    assert len(texts) == 2
    row = tokenizer("x" * 505)["input_ids"]
    written = continue_rows(model, tokenizer, [row, row[:5]], lambda *_: False, max_new_tokens=20)
    ids = list(row)
    while len(ids) < 512 + 1 and (len(ids) == 505 or ids[-1] != 1):
        ids.append(int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
    assert written[0] == tokenizer.decode(ids[505:], skip_special_tokens=True)
