import pytest

from perdure.errors import RequestError
from perdure.requests import Fact
from perdure.requests.choosing import choose_facts

LYON = Fact(subject="Lyon", prompt="The twin city of Lyon is", target_new="Manila")
ADA = Fact(subject="Ada", prompt="Ada speaks", target_new="Dutch")
ROME = Fact(subject="Ada", prompt="Ada lives in", target_new="Rome")
LATER = Fact(subject="Lyon", prompt="The twin city of Lyon is", target_new="Oslo")
FACTS = [LYON, ADA, ROME]


@pytest.mark.parametrize(
    ("name", "fact"),
    [
        (ADA.id, ADA),
        (ADA.id[:4], ADA),
        ("Ada lives in", ROME),
        (" Ada speaks ", ADA),
        ("Lyon", LYON),
    ],
)
def test_a_fact_is_found_by_id_prompt_or_subject(name, fact):
    assert choose_facts([name], FACTS) == (fact,)


def test_facts_come_once_and_in_their_own_order():
    assert choose_facts(["Ada lives in", "Lyon", ROME.id], [*FACTS, ADA]) == (LYON, ROME)
    assert choose_facts([], FACTS) == ()


def test_all_names_that_mean_nothing_or_too_much_are_told_at_once():
    with pytest.raises(RequestError) as caught:
        choose_facts(["Ada", "Lyons", "zzz", "Ada speaks"], FACTS)
    message = str(caught.value)
    assert f"'Ada' means 2 facts; name one by its id:\n  {ADA.short_id}  Ada speaks → Dutch" in message
    assert f"'Lyons'. Near ones:\n  {LYON.short_id}  The twin city of Lyon is → Manila" in message
    assert "'zzz'. 3 facts were taught; none is near" in message
    assert "Ada speaks'" not in message


def test_a_prompt_that_was_taught_two_answers_needs_an_id():
    with pytest.raises(RequestError, match="means 2 facts"):
        choose_facts(["The twin city of Lyon is"], [LYON, LATER])
    assert choose_facts([LATER.short_id], [LYON, LATER]) == (LATER,)
