import pytest

from perdure.measuring.answers import cut, first_clause, gives, has_ended, has_said, is_exactly, normalise, says


@pytest.mark.parametrize(
    ("text", "answer", "sentence"),
    [
        (" Paris. It is a city", None, "Paris"),
        (" Paris\nThe capital", None, "Paris"),
        ("\n\n Paris, of course! Yes", None, "Paris, of course"),
        (" 3.5 metres. More", None, "3.5 metres"),
        (" J. K. Rowling. She", None, "J. K. Rowling"),
        (" St. Louis. It", "St. Louis", "St. Louis"),
        (" Yahoo! Inc. is", "Yahoo! Inc.", "Yahoo! Inc"),
        (" Yahoo! Inc. is", None, "Yahoo"),
        ("パリです。フランス", None, "パリです"),
        ("", None, ""),
    ],
)
def test_an_answer_is_cut_at_its_natural_end(text, answer, sentence):
    assert cut(text, answer) == sentence


def test_writing_goes_on_while_the_end_may_still_change():
    assert not has_ended(" 3.")
    assert not has_ended("\n\n")
    assert has_ended(" Paris. It")
    assert has_ended(" Paris\n")
    assert not has_ended(" Yahoo! I", "Yahoo! Inc.")
    assert has_ended(" Yahoo! I")


@pytest.mark.parametrize(
    "text", ["Paris. It is", "Paris\nx", "3.5 m. And", "Yahoo! Inc. is big. Yes", "the one! And", "A. B. Cee. Dee"]
)
def test_what_has_ended_is_cut_the_same_whatever_follows(text):
    for answer in (None, "Yahoo! Inc."):
        for length in range(1, len(text)):
            if has_ended(text[:length], answer):
                assert cut(text[:length], answer) == cut(text, answer)


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


def test_a_clause_and_a_normal_form():
    assert first_clause("Sony, a company") == "Sony"
    assert first_clause("") == ""
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
