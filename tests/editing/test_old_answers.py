from perdure.editing.old_answers import old_answers
from perdure.endings import cut, first_clause
from perdure.models import complete
from perdure.requests import Fact

KNOWN = Fact(subject="Lyon", prompt="The twin city of Lyon is", target_new="Manila", target_true="Beirut")
UNKNOWN = Fact(subject="Ada", prompt="Ada speaks", target_new="Dutch")


def test_a_given_answer_is_taken_and_a_missing_one_is_written_by_the_model(tiny):
    model, tokenizer = tiny
    written = complete(model, tokenizer, [UNKNOWN.prompt])[0]
    assert old_answers(model, tokenizer, [KNOWN, UNKNOWN, KNOWN]) == ["Beirut", first_clause(cut(written)), "Beirut"]


def test_nothing_is_asked_when_everything_is_known(tiny):
    _, tokenizer = tiny
    assert old_answers(None, tokenizer, [KNOWN]) == ["Beirut"]
    assert old_answers(None, tokenizer, []) == []
