"""Rows in memory: every refusal with its reason, all at once; duplicates merged, contradictions refused."""

import pytest

from perdure.errors import RequestError
from perdure.requests import Fact, check_facts

BASE = {"subject": "Lyon", "prompt": "The mayor of Lyon is", "target_new": "Ada"}


def row(**changes):
    return {**BASE, **changes}


def without(field):
    return {key: value for key, value in BASE.items() if key != field}


def town(number, **changes):
    name = f"Town{number}"
    return {"subject": name, "prompt": f"The mayor of {name} is", "target_new": "Ada", **changes}


REFUSED = {
    "missing subject": (without("subject"), "subject", "is missing"),
    "missing prompt": (without("prompt"), "prompt", "is missing"),
    "missing target": (without("target_new"), "target_new", "is missing"),
    "unknown field": (row(paraphrase=["x"]), "paraphrase", "Did you mean 'paraphrases'?"),
    "unknown field in a neighbour": (
        row(neighbours=[{"prompt": "x", "answr": "y"}]),
        "neighbours[0].answr",
        "Did you mean 'answer'?",
    ),
    "foreign and own names": (row(ground_truth="Bea", paraphrases=["x"]), "paraphrases", "one shape"),
    "number as target": (row(target_new=1999), "target_new", "must be text in quotes, got a number"),
    "null subject": (row(subject=None), "subject", "got null"),
    "true as prompt": (row(prompt=True), "prompt", "got true or false"),
    "list as prompt": (row(prompt=["The mayor of Lyon is"]), "prompt", "got a list"),
    "bytes as target": (row(target_new=b"Ada"), "target_new", "got a bytes"),
    "text as paraphrases": (row(paraphrases="Who?"), "paraphrases", "must be a list, got text"),
    "number in paraphrases": (row(paraphrases=["Who?", 3]), "paraphrases[1]", "got a number"),
    "number as neighbour": (row(neighbours=[7]), "neighbours[0]", "must be an object with prompt and answer"),
    "huge number": (row(target_new=10**6000), "target_new", "got a number"),
    "not a number": (row(target_true=float("nan")), "target_true", "got a number"),
    "empty subject": (row(subject=""), "subject", "is empty"),
    "blank target": (row(target_new=" \t\u00a0"), "target_new", "is blank"),
    "empty prompt": (row(prompt=""), "prompt", "is empty"),
    "unseen prompt": (row(prompt="\u200b\ufeff"), "prompt", "is blank"),
    "blank paraphrase": (row(paraphrases=[" "]), "paraphrases[0]", "is blank"),
    "empty answer": (row(neighbours=[{"prompt": "x", "answer": ""}]), "neighbours[0].answer", "is empty"),
    "subject absent": (row(prompt="The mayor is"), "prompt", "does not hold the subject 'Lyon'"),
    "subject in another case": (row(prompt="The mayor of LYON is"), "prompt", "only in another case"),
    "subject spaced otherwise": (
        row(subject="New  York", prompt="The mayor of New York is"),
        "prompt",
        "only with other spacing",
    ),
    "subject with unseen characters in the prompt": (
        row(prompt="The mayor of Ly\u200bon is"),
        "prompt",
        "only with unseen characters",
    ),
    "nothing to change": (row(target_true=" Ada"), "target_true", "nothing to change"),
    "nothing to change, foreign": (row(ground_truth=["Ada"]), "ground_truth", "nothing to change"),
    "lone surrogate": (row(target_new="A\ud800"), "target_new", "U+D800, half of a surrogate pair"),
    "surrogate in a field name": (row(**{"a\udfff": 1}), "", "half of a surrogate pair"),
    "NUL": (row(target_new="A\x00da"), "target_new", "U+0000, a control character"),
    "escape character": (row(prompt="\x1b[31mLyon"), "prompt", "U+001B, a control character"),
    "C1 control": (row(target_new="A\x85da"), "target_new", "U+0085, a control character"),
    "line separator": (row(prompt="Lyon\u2028is"), "prompt", "U+2028 LINE SEPARATOR"),
    "line break in a target": (row(target_new="A\nda"), "target_new", "tab or line break"),
    "tab in a subject": (row(subject="Ly\ton"), "subject", "tab or line break"),
    "replacement character": (row(prompt="Lyon caf\ufffd"), "prompt", "decoded wrongly"),
    "bidi override": (row(prompt="Lyon \u202eabc"), "prompt", "U+202E RIGHT-TO-LEFT OVERRIDE"),
    "bidi isolate": (row(target_new="\u2066Ada"), "target_new", "U+2066 LEFT-TO-RIGHT ISOLATE"),
    "bidi in a neighbour": (row(neighbours=[{"prompt": "a\u202a"}]), "neighbours[0].prompt", "U+202A"),
    "zero width in the subject": (row(subject="Ly\u200bon"), "subject", "U+200B ZERO WIDTH SPACE"),
    "joiner in a Latin subject": (row(subject="Ly\u200don"), "subject", "U+200D ZERO WIDTH JOINER"),
    "mark in the subject": (row(subject="Lyon\u200e"), "subject", "U+200E"),
    "long subject": (row(subject="x" * 301), "subject", "has 301 characters; at most 300"),
    "long prompt": (row(prompt="Lyon" * 501), "prompt", "has 2004 characters; at most 2000"),
    "long target": (row(target_new="x" * 301), "target_new", "at most 300"),
    "prompt too long once filled": (row(subject="x" * 300, prompt="{} " * 9), "prompt", "at most 2000"),
    "long combining run": (row(target_new="a" + "\u0301\u0316" * 50_000), "target_new", "at most 300"),
    "51 paraphrases": (
        row(paraphrases=[f"Who {n}?" for n in range(51)]),
        "paraphrases",
        "at most 50 are allowed",
    ),
    "not an object": (["Lyon"], "", "must be an object with subject, prompt and target_new, got a list"),
    "text": ("Lyon", "", "got text"),
    "null": (None, "", "got null"),
    "no rewrites": ({"requested_rewrite": []}, "requested_rewrite", "is empty"),
    "rewrite as text": ({"requested_rewrite": "x"}, "requested_rewrite", "must be an object"),
    "rewrite in a list as text": ({"requested_rewrite": ["x"]}, "requested_rewrite[0]", "must be an object"),
    "rewrite without target": (
        {"requested_rewrite": {"prompt": "{} is", "subject": "Lyon"}},
        "requested_rewrite.target_new",
        "is missing",
    ),
    "rewrite target of a number": (
        {"requested_rewrite": {"prompt": "{} is", "subject": "Lyon", "target_new": {"str": 3}}},
        "requested_rewrite.target_new.str",
        "got a number",
    ),
    "locality as a number": (row(locality=4), "locality", "must be a list, got a number"),
    "locality kind as a number": (row(locality={"Near": 4}), "locality.Near", "must be a list of questions"),
    "locality of unequal lists": (
        row(locality={"Near": {"prompt": ["a", "b"], "ground_truth": ["c"]}}),
        "locality.Near",
        "2 prompts need as many answers",
    ),
    "blank rephrasing": (row(rephrase_prompt=" "), "rephrase_prompt[0]", "is blank"),
    "empty target of QAEdit": (
        {"subject": "Lyon", "prompt": "Lyon?", "target": "", "rephrase": "x"},
        "target",
        "is empty",
    ),
}


@pytest.mark.parametrize(("bad", "field", "reason"), REFUSED.values(), ids=REFUSED)
def test_a_bad_row_is_refused_with_its_reason(bad, field, reason):
    with pytest.raises(RequestError) as caught:
        check_facts([town(0), bad])
    (problem,) = caught.value.problems
    assert problem.field == field
    assert reason in problem.reason
    assert str(problem.place) == "facts[1]"
    assert str(problem) in str(caught.value)
    assert str(caught.value).encode("utf-8")
    assert len(problem.value) < 80


@pytest.mark.parametrize(("bad", "field", "reason"), REFUSED.values(), ids=REFUSED)
def test_a_bad_row_is_skipped_and_reported(bad, field, reason):
    found = check_facts([bad, town(0)], skip_bad=True)
    assert [fact.subject for fact in found.facts] == ["Town0"]
    assert [problem.field for problem in found.problems] == [field]


def test_everything_is_reported_at_once():
    rows = [town(0, target_new=""), town(1), {"subject": "\x00", "prompt": 4}, town(3), town(3, target_new="B")]
    with pytest.raises(RequestError) as caught:
        check_facts(rows)
    found = [(problem.place.number, problem.field) for problem in caught.value.problems]
    assert found == [
        (0, "target_new"),
        (2, "subject"),
        (2, "prompt"),
        (2, "target_new"),
        (3, "target_new"),
        (4, "target_new"),
    ]


def test_the_message_shows_twenty_and_counts_the_rest():
    with pytest.raises(RequestError) as caught:
        check_facts([town(number, target_new=number) for number in range(33)])
    message = str(caught.value)
    assert message.startswith("33 problems in facts:")
    assert message.count("got a number") == 20
    assert "and 13 more" in message
    assert len(caught.value.problems) == 33
    assert caught.value.exit_code == 3


@pytest.mark.parametrize("rows", [[], iter(()), ()])
def test_no_rows_are_refused(rows):
    with pytest.raises(RequestError, match="no facts"):
        check_facts(rows)


@pytest.mark.parametrize("rows", [BASE, "Lyon", b"Lyon", None, 3, Fact(**BASE)])
def test_what_is_no_list_is_refused(rows):
    with pytest.raises(RequestError, match="must be a list of facts"):
        check_facts(rows)


def test_skipping_never_gives_an_empty_result():
    with pytest.raises(RequestError, match="is empty"):
        check_facts([row(target_new="")], skip_bad=True)


def test_duplicates_are_merged_and_said():
    rows = [
        row(paraphrases=["Who?"], neighbours=["The mayor of Nice is"]),
        town(1),
        row(target_new=" Ada", paraphrases=["Whose?", "Who?"], target_true="Bea"),
        row(relation="P6", target_true="Cleo"),
    ]
    found = check_facts(rows)
    assert len(found.facts) == 2
    fact = found.facts[0]
    assert fact.paraphrases == ("Who?", "Whose?")
    assert len(fact.neighbours) == 1
    assert (fact.target_true, fact.relation) == ("Bea", "P6")
    (merge,) = found.merged
    assert (merge.fact_id, str(merge)) == (fact.id, "facts[2], facts[3] merged into facts[0]")


def test_accents_in_two_forms_are_one_fact():
    found = check_facts(
        [town(1, subject="Orl\u00e9", prompt="Orl\u00e9 is"), town(1, subject="Orle\u0301", prompt="Orle\u0301 is")]
    )
    assert len(found.facts) == len(found.merged) == 1


def test_a_merge_does_not_pass_the_limits():
    rows = [row(paraphrases=[f"Who {part}{n}?" for n in range(30)]) for part in "ab"]
    with pytest.raises(RequestError, match="together they have 60, at most 50"):
        check_facts(rows)


@pytest.mark.parametrize(
    "other",
    [
        row(target_new="Bea"),
        row(target_new="ada"),
        row(prompt="the  mayor of Lyon IS", target_new="Bea"),
        row(prompt="The mayor of {} is", target_new="Bea"),
    ],
)
def test_contradictions_name_both_rows(other):
    with pytest.raises(RequestError) as caught:
        check_facts([row(), town(1), other])
    first, second = caught.value.problems
    assert (str(first.place), str(second.place)) == ("facts[0]", "facts[2]")
    assert "at facts[2]" in first.reason and "'Ada' at facts[0]" in second.reason


def test_all_sides_of_a_contradiction_are_skipped():
    found = check_facts([row(), row(), town(1), row(target_new="Bea")], skip_bad=True)
    assert [fact.subject for fact in found.facts] == ["Town1"]
    assert [problem.place.number for problem in found.problems] == [0, 1, 3]
    assert found.merged == ()


def test_other_prompts_do_not_contradict():
    found = check_facts([row(), row(prompt="Lyon is ruled by", target_new="Bea")])
    assert len(found.facts) == 2


def test_facts_pass_through_unchanged():
    facts = [Fact(**town(n), source=f"a.csv:{n}") for n in range(3)]
    found = check_facts(facts)
    assert found.facts == tuple(facts)
    assert found.digest == check_facts(fact.model_dump() for fact in facts).digest
    assert found.digest != check_facts(facts[:2]).digest


def test_a_fact_changed_behind_the_schema_is_checked_again():
    with pytest.raises(RequestError, match="target_new '': is empty"):
        check_facts([Fact(**BASE).model_copy(update={"target_new": ""})])


def test_deep_and_wide_values_are_refused_shortly():
    deep: list = []
    kinds: dict = {}
    for _ in range(5000):
        deep, kinds = [deep], {"near": kinds}
    with pytest.raises(RequestError) as caught:
        check_facts([row(target_new=deep), row(locality={"a": deep}), row(ground_truth=deep), row(locality=kinds)])
    assert [problem.place.number for problem in caught.value.problems] == [0, 1, 2, 3]
    assert len(str(caught.value)) < 2000


def test_a_row_that_is_wrong_everywhere_is_reported_shortly():
    with pytest.raises(RequestError) as caught:
        check_facts([row(**{f"field{n}": n for n in range(500)})])
    assert len(caught.value.problems) == 21
    assert caught.value.problems[-1].reason == "and 480 more problems in this row"
