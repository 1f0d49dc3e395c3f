"""Causal tracing on a pretended accelerator, and on a model with an adapter."""

import torch

import planted
import tiny as models
from elsewhere import pretending, send
from perdure.editing.corruption import TracedFact
from perdure.editing.tracing import TraceConfig, trace_facts

FACTS = [TracedFact(**fact) for fact in planted.FACTS[:2]]
FEW = TraceConfig.model_validate({"draws": 2})


def test_tracing_mixes_no_devices(tokenizer):
    here = trace_facts(planted.model(2), tokenizer, FACTS, FEW)
    with pretending():
        there = trace_facts(send(planted.model(2)), tokenizer, FACTS, FEW)
    assert torch.allclose(here.effects, there.effects, atol=1e-4, equal_nan=True)


def test_tracing_sees_the_adapter(tokenizer):
    """A model with an adapter is traced as the merged model is."""
    attached = models.with_lora(planted.model(2))
    merged = models.with_lora(planted.model(2)).merge_and_unload()
    known = planted.facts_known_to(merged, tokenizer)
    found = [trace_facts(model, tokenizer, [TracedFact(**fact) for fact in known], FEW) for model in (attached, merged)]
    assert torch.equal(found[0].effects.nan_to_num(), found[1].effects.nan_to_num())
