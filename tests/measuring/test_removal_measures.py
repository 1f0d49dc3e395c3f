import pytest

from perdure.errors import RequestError
from perdure.measuring import EditAnswer, Outcomes, build_removal, questions_about
from perdure.measuring.removals import is_back
from perdure.requests import Fact


def answer(written, *, fact="f", kind="prompt", prompt="The PlayStation is made by", rival="Sony", new=-1.0, old=-2.0):
    return EditAnswer(
        fact=fact,
        subject="PlayStation",
        kind=kind,
        prompt=prompt,
        expected="Panasonic",
        expected_is_given=True,
        target="Panasonic",
        rival=rival,
        written=written,
        exact=written == "Panasonic",
        contains="Panasonic" in written,
        log_prob_new=new,
        log_prob_old=old,
    )


@pytest.mark.parametrize(
    ("first", "now", "back"),
    [
        ("Sony Corporation", "Sony Corporation", True),
        ("Sony Corporation", "Sony, a company of Japan", True),  # what follows may differ
        ("Sony Corporation", "Panasonic and Sony", False),
        ("Sony Corporation", "Nintendo", False),
        ("a company, of Japan", "A company", True),  # the rival is not what was said: the first clause is
        ("", "", True),
        ("", "Sony", False),
        ("Panasonic", "Panasonic of Osaka", True),  # it was right before it was taught
    ],
)
def test_the_answer_of_before_is_back(first, now, back):
    assert is_back(answer(first), answer(now)) is back


def test_what_became_of_a_fact_and_of_the_others():
    other = dict(fact="g", prompt="The capital of Canada is", rival="Ottawa")
    original = Outcomes(removed=(answer("Sony"), answer("Panasonic", kind="paraphrase", prompt="Its maker is")))
    before = Outcomes(
        removed=(answer("Panasonic"), answer("Panasonic", kind="paraphrase", prompt="Its maker is")),
        edits=(answer("Montreal", **other), answer("Rome", kind="neighbour", **other)),
    )
    after = Outcomes(
        removed=(answer("Panasonic still"), answer("Panasonic", kind="paraphrase", prompt="Its maker is")),
        edits=(answer("Montreal, I think", **other), answer("Oslo", kind="neighbour", **other)),
    )
    found = build_removal("v0", original, before, after)
    assert (found.facts, found.original) == (1, "v0")
    assert (found.gone.hits, found.gone.n) == (1, 2)  # the paraphrase was answered so before it was taught
    assert [case.gone for case in found.cases] == [False, True]
    assert found.cases[0].probability_after == pytest.approx(1 / (1 + 2.718281828**-1))
    assert (found.unchanged.after.hits, found.unchanged.after.n) == (0, 1)  # neighbours are not counted
    assert build_removal("v0", Outcomes(), before.model_copy(update={"removed": ()}), Outcomes()) is None
    with pytest.raises(RequestError, match="different questions"):
        build_removal("v0", Outcomes(), before, after)


def test_only_the_fact_itself_is_asked_about_what_was_taken_out():
    fact = Fact(
        subject="Lyon",
        prompt="The twin city of Lyon is",
        target_new="Manila",
        paraphrases=["Lyon is twinned with"],
        neighbours=[{"prompt": "The twin city of Bonn is", "answer": "Oxford"}],
    )
    (asked,) = questions_about([fact])
    assert asked.id == fact.id
    assert asked.paraphrases == fact.paraphrases
    assert not asked.neighbours
