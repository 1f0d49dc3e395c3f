import pytest

from perdure.editing.old_answers import first_clause, old_answers
from perdure.models import complete
from perdure.requests import Fact

KNOWN = Fact(subject="Lyon", prompt="The twin city of Lyon is", target_new="Manila", target_true="Beirut")
UNKNOWN = Fact(subject="Ada", prompt="Ada speaks", target_new="Dutch")


def test_a_given_answer_is_taken_and_a_missing_one_is_written_by_the_model(tiny):
    model, tokenizer = tiny
    written = complete(model, tokenizer, [UNKNOWN.prompt])[0]
    assert old_answers(model, tokenizer, [KNOWN, UNKNOWN, KNOWN]) == ["Beirut", first_clause(written), "Beirut"]


def test_nothing_is_asked_when_everything_is_known(tiny):
    _, tokenizer = tiny
    assert old_answers(None, tokenizer, [KNOWN]) == ["Beirut"]
    assert old_answers(None, tokenizer, []) == []


@pytest.mark.parametrize(
    ("text", "clause"),
    [
        (" the city of Lyon, which", "the city of Lyon"),
        ("Paris. It is", "Paris"),
        ("\n\n3.5 km", "3.5 km"),
        ("東京。大阪", "東京"),
        ("Jean-Luc - a man", "Jean-Luc"),
        ("whole", "whole"),
        (': "Paris", the city', "Paris"),
        (" \n", ""),
    ],
)
def test_an_answer_ends_with_its_clause(text, clause):
    assert first_clause(text) == clause
