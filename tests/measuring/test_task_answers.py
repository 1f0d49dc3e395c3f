"""Free answers to the questions of a task: how they are judged, and where writing ends."""

import pytest

from perdure.measuring.task_answers import judged, rouge_l


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
