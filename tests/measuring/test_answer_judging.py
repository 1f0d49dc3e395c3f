import pytest

from perdure.measuring.answers import gives, has_said, is_exactly, normalise, says


def test_an_answer_must_stand_whole():
    assert says("Paris", "the city of paris")
    assert not says("Paris", "a Parisian")
    assert not says("9", "19th")
    assert says("C++", "written in C++")
    assert says("パリ", "首都はパリです")
    assert says("New York", "in New\nYork")


def test_an_answer_is_said_for_certain_once_something_follows():
    assert not has_said("Pari", "Pari")
    assert not has_said("Pari", "Paris is")
    assert has_said("Paris", "Paris is")


@pytest.mark.parametrize(
    ("answer", "written", "exact"),
    [
        ("Paris", "Paris", True),
        ("Paris", "the Paris", True),
        ("Paris", "paris, the capital of France", True),
        ("Paris, Texas", "Paris, Texas, where", True),
        ("Paris", "“Paris”", True),
        ("Paris", "in Paris", False),
        ("Paris", "Paris Hilton", False),
        ("A", "A", True),
        ("C", "C++", False),
        ("Paris", "", False),
    ],
)
def test_exactly_the_answer(answer, written, exact):
    assert is_exactly(answer, written) is exact


def test_the_normal_form():
    assert normalise("The cat's a_pet!") == "cat s pet"


@pytest.mark.parametrize(
    ("answer", "aliases", "text", "given"),
    [
        ("Italy", (), "It is Italy", True),
        ("Italy", ("Italia",), "in Italia, they say", True),
        ("Italian", ("it", "Lingua italiana"), "I think it is French", False),
        ("Italian", ("it",), "IT, of course", True),
        ("United States", ("US", "USA"), "he told us so", False),
        ("United States", ("US", "USA"), "the US", True),
        ("it", (), "I think it is French", True),
        ("東京都", ("東京",), "日本の首都は東京です", True),
        ("Washington, D.C.", ("the city of Washington",), "Washington", False),
        ("Rome", (), "Romeo", False),
    ],
)
def test_an_alias_counts_and_a_short_one_only_alone(answer, aliases, text, given):
    assert gives(answer, aliases, text) is given
