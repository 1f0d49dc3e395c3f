import math

import pytest
import torch

from perdure.errors import ModelError
from perdure.measuring import Suite, measure_language
from perdure.measuring.suites import HeldOut

SUITE = Suite(id="x", passages=(HeldOut(text="A short one.", topic="test"), HeldOut(text="Another, longer passage.")))


def test_the_first_token_is_given_and_the_others_are_scored(tiny):
    model, tokenizer = tiny
    found = measure_language(model, tokenizer, SUITE)
    ids = torch.tensor([tokenizer(SUITE.passages[0].text)["input_ids"]])
    loss = float(model(input_ids=ids, labels=ids).loss)
    assert found[0].tokens == ids.shape[1] - 1
    assert math.isclose(found[0].nll, loss * found[0].tokens, rel_tol=1e-4)
    assert found[0].name == "test: A short one."


def test_long_passages_are_cut_at_the_context(tiny):
    model, tokenizer = tiny
    long = Suite(id="x", passages=(HeldOut(text="word " * 200), HeldOut(text="b c")))
    assert measure_language(model, tokenizer, long)[0].tokens == model.config.max_position_embeddings - 1


def test_a_damaged_model_is_named(tiny):
    model, tokenizer = tiny
    model.get_output_embeddings().weight.data[:] = math.nan
    with pytest.raises(ModelError, match="no finite probability"):
        measure_language(model, tokenizer, SUITE)


def test_passages_of_one_token_have_nothing_to_score(tiny):
    """Without a start token nothing predicts it; in a batch of such rows there is no place at all."""
    found = measure_language(*tiny, Suite(id="x", passages=(HeldOut(text="a"), HeldOut(text="b"))))
    assert [(passage.tokens, passage.nll) for passage in found] == [(0, 0), (0, 0)]
