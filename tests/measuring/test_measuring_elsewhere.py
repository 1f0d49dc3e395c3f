"""Measures on a pretended accelerator: nothing mixes devices, and the answers are those found here."""

import pytest

import tiny as models
from elsewhere import pretending, send
from perdure.measuring import measure_edits, measure_language, measure_retention
from perdure.measuring.divergence import distributions, mean_divergence
from perdure.requests import Fact

FACTS = [
    Fact(
        subject="Lyon",
        prompt="The twin city of Lyon is",
        target_new="Manila",
        target_true="Beirut",
        paraphrases=["Lyon is a twin of"],
    )
]
ROWS = [tuple(range(40, 60)), tuple(range(30, 45))]


def edits(model, tokenizer, _suite):
    return [answer.model_dump(include={"question", "text"}) for answer in measure_edits(model, tokenizer, FACTS)]


def retention(model, tokenizer, suite):
    parts = measure_retention(model, tokenizer, suite)
    return {name: [answer.model_dump() for answer in answers] for name, answers in parts.items()}


def language(model, tokenizer, suite):
    return [pytest.approx(passage.nll, rel=1e-4) for passage in measure_language(model, tokenizer, suite)]


def divergence(model, _tokenizer, _suite):
    return mean_divergence(model, distributions(model, ROWS)) < 1e-6


@pytest.mark.parametrize("measure", [edits, retention, language, divergence])
def test_measures_mix_no_devices(measure, tokenizer, small_suite):
    here = measure(models.llama(), tokenizer, small_suite)
    with pretending():
        assert measure(send(models.llama()), tokenizer, small_suite) == here
