import pytest

from perdure.endings import cut, first_clause, has_ended


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


def test_a_clause_ends_with_its_first_mark():
    assert first_clause("Sony, a company") == "Sony"
    assert first_clause("the city of Lyon - in France") == "the city of Lyon"
    assert first_clause("Jean-Luc") == "Jean-Luc"
    assert first_clause("") == ""
