"""Causal tracing: against plain runs of the whole model, and on a model in which one layer knows the answer."""

from contextlib import ExitStack
from dataclasses import replace

import pytest
import torch

import planted
import tiny as tiny_models
from perdure.editing.corruption import (
    TOKEN_CLASSES,
    TRACED_LIMIT,
    Noise,
    TracedFact,
    TracedRow,
    embedding_spread,
    traced_row,
)
from perdure.editing.tracing import TraceConfig, choose_layers, trace_facts, window_length
from perdure.editing.tracing_runs import Tracer, restored_layers
from perdure.errors import RequestError, SettingError
from perdure.models import layout_of, patch_output

ROW = TracedRow(tuple(range(40, 51)), 0, 3, 5)
FACTS = [TracedFact(**fact) for fact in planted.FACTS]


def row_known_to(model, row=ROW):
    """The row with the answer that the model gives."""
    return replace(row, answer=int(model(torch.tensor([row.ids])).logits[0, -1].argmax()))


def reference(model, row, noise, restored=()):
    """The mean probability of the answer in whole runs, one at a time, with some modules' outputs put back."""
    layout, drawn = layout_of(model), noise.of(row, layout_of(model).d_model)
    ids = torch.tensor([row.ids])
    kept = {}
    hooks = [
        module.register_forward_hook(lambda _m, _a, out, module=module: kept.__setitem__(module, out))
        for module in (*layout.mlps, *layout.blocks)
    ]
    model(ids)
    for hook in hooks:
        hook.remove()
    total = 0.0
    for one in drawn:

        def corrupt(hidden, one=one):
            return torch.cat([hidden[:, : row.first], hidden[:, row.first :] + one], 1)

        with ExitStack() as stack:
            stack.enter_context(patch_output(model.get_input_embeddings(), corrupt))
            for module, token in restored:

                def put(hidden, module=module, token=token):
                    clean = kept[module][0] if isinstance(kept[module], tuple) else kept[module]
                    hidden = hidden.clone()
                    hidden[:, token] = clean[:, token]
                    return hidden

                stack.enter_context(patch_output(module, put))
            total += float(model(ids).logits[0, -1].double().softmax(0)[row.answer])
    return total / len(drawn)


def test_fast_runs_give_what_whole_runs_give(family):
    model, _ = family
    layout = layout_of(model)
    row = row_known_to(model)
    noise = Noise(3 * embedding_spread(model, [row]), 2, 7)
    tracer = Tracer(model, 2, noise)
    runs = tracer.start(row)
    assert runs.known
    assert float(runs.corrupted_S.mean()) == pytest.approx(reference(model, row, noise), abs=1e-6)
    found = tracer.effects(runs) + runs.corrupted_S.mean()
    for layer in range(tiny_models.DEPTH):
        window = restored_layers(layer, 2, tiny_models.DEPTH)
        for token_class, token in (("last subject token", 5), ("last token", len(row.ids) - 1)):
            at = TOKEN_CLASSES.index(token_class)
            mlps = reference(model, row, noise, [(layout.mlps[one], token) for one in window])
            hidden = reference(model, row, noise, [(layout.blocks[layer], token)])
            assert found[:, layer, at].tolist() == pytest.approx([mlps, hidden], abs=1e-6)


@pytest.mark.parametrize("tokens", [1, 20, 10_000])
def test_parts_of_any_size_give_the_same(family, monkeypatch, tokens):
    model, _ = family
    row = row_known_to(model)
    tracer = Tracer(model, 2, Noise(1.0, 2, 0))
    whole = tracer.effects(tracer.start(row))
    monkeypatch.setattr("perdure.editing.tracing_runs._CPU_TOKENS", tokens)
    torch.testing.assert_close(tracer.effects(tracer.start(row)), whole, atol=1e-6, rtol=0)


@pytest.mark.parametrize("layer", [0, 2, 3])
def test_the_planted_layer_is_found(layer, tokenizer):
    trace = trace_facts(planted.model(layer), tokenizer, FACTS, TraceConfig(window=1))
    assert (len(trace.clean), trace.left_out) == (len(FACTS), {})
    assert (trace.clean > 0.4).all()
    assert (trace.corrupted < trace.clean - 0.01).all()
    mlp = trace.effects_of("mlp", "last subject token").mean(0)
    assert choose_layers(mlp.tolist(), 1) == [layer]
    assert mlp[layer] > 0.1
    others = [place for place in range(planted.DEPTH) if place != layer]
    assert mlp[others].abs().max() < 1e-6
    for token_class in TOKEN_CLASSES[:2]:  # the noise feigns the feature here, which a clean state takes back
        assert trace.effects_of("mlp", token_class).max() < 1e-6
    for token_class in TOKEN_CLASSES[3:]:  # no noise gets here below the attention
        assert trace.effects_of("mlp", token_class).abs().max() < 1e-6


def test_hidden_states_carry_it_at_the_subject_and_then_at_the_end(tokenizer):
    trace = trace_facts(planted.model(2), tokenizer, FACTS, TraceConfig(window=1))
    subject, end = (trace.effects_of("hidden", place).mean(0) for place in ("last subject token", "last token"))
    assert (subject[: planted.READS] > 0.1).all()
    assert subject[planted.READS :].abs().max() < 1e-6
    assert end[: planted.READS].abs().max() < 1e-6
    torch.testing.assert_close(
        end[planted.READS :], (trace.clean - trace.corrupted).mean().expand(2), atol=1e-6, rtol=0
    )


def test_a_window_spreads_the_effect_over_the_layers_that_hold_it(tokenizer):
    trace = trace_facts(planted.model(2), tokenizer, FACTS, TraceConfig(window=3))
    mlp = trace.effects_of("mlp", "last subject token").mean(0)
    assert [place for place in range(planted.DEPTH) if mlp[place] > 0.1] == [1, 2, 3]


def test_the_same_seed_gives_the_same_trace_in_any_company(tokenizer):
    model, config = planted.model(2), TraceConfig(draws=2)
    noise = Noise(1.0, 2, 0)
    row = traced_row(tokenizer, FACTS[0])
    assert torch.equal(noise.of(row, 8), noise.of(row, 8))
    assert not torch.equal(noise.of(row, 8), Noise(1.0, 2, 1).of(row, 8))
    first, again = (trace_facts(model, tokenizer, FACTS, config) for _ in range(2))
    assert torch.equal(first.corrupted, again.corrupted)
    turned = trace_facts(model, tokenizer, FACTS[::-1], config)
    torch.testing.assert_close(turned.effects.flip(1), first.effects, atol=1e-7, rtol=0, equal_nan=True)


def test_the_model_is_left_as_it_was(tiny):
    model, _ = tiny
    ids = torch.tensor([ROW.ids])
    before = model(ids).logits
    tracer = Tracer(model, 2, Noise(1.0, 2, 0))
    tracer.effects(tracer.start(ROW))
    assert torch.equal(model(ids).logits, before)
    assert not any("forward" in vars(block) for block in layout_of(model).blocks)


def test_facts_that_cannot_be_traced_are_counted_with_their_reason(tokenizer):
    more = [
        TracedFact("Oz", "Oz and Oz are", "one"),
        TracedFact("Oz", "We like Oz", "much"),
        TracedFact("Ada", "Ada is", "unknown: no feature"),
        TracedFact("Oz", f"Oz {'very ' * 20}is", "long"),
    ]
    trace = trace_facts(planted.model(2), tokenizer, [*FACTS, *more])
    assert len(trace.clean) == len(FACTS)
    assert sorted(trace.left_out.values()) == [1, 1, 1, 1]
    words = " ".join(trace.left_out)
    for reason in ("exactly once", "ends the prompt", f"more than {TRACED_LIMIT} tokens", "does not know it"):
        assert reason in words
    with pytest.raises(RequestError, match=r"no fact can be traced \(1: the model does not know it"):
        trace_facts(planted.model(2), tokenizer, more[2:3])
    with pytest.raises(RequestError, match="none was given"):
        trace_facts(planted.model(2), tokenizer, [])


def test_noise_that_does_not_hurt_is_told(tokenizer):
    with pytest.raises(RequestError, match="does not lower"):
        trace_facts(planted.model(2), tokenizer, FACTS, TraceConfig(noise=1e-12))


@pytest.mark.parametrize(
    ("first", "last", "length", "classes"),
    [(0, 0, 2, (2, 5)), (1, 2, 5, (0, 2, 3, 5)), (0, 3, 8, (0, 1, 1, 2, 3, 4, 4, 5))],
)
def test_every_token_has_one_class(first, last, length, classes):
    assert TracedRow(tuple(range(length)), 0, first, last).classes == classes


def test_a_class_that_no_token_has_is_not_a_number(tokenizer):
    trace = trace_facts(planted.model(2), tokenizer, [TracedFact("z", "z is", "so")], TraceConfig(draws=1))
    assert trace.effects[:, 0, 0, :2].isnan().all()
    assert trace.effects_of("mlp", "middle subject tokens").shape == (0, planted.DEPTH)
    assert trace.effects_of("hidden", "last subject token").shape == (1, planted.DEPTH)


def test_the_subject_is_found_among_bytes(tokenizer):
    row = traced_row(tokenizer, TracedFact("Zoë", "I saw Zoë there", "once"))
    assert tokenizer.decode(row.ids[row.first : row.last + 1]) == "Zoë"
    assert row.last - row.first == 3
    assert tokenizer.decode([row.answer]) == " "


def test_spread_is_that_of_the_subjects_embeddings(tiny):
    model, _ = tiny
    rows = [TracedRow((1, 5, 6, 7), 0, 1, 2), TracedRow((5, 9), 0, 0, 0)]
    expected = model.get_input_embeddings().weight[[5, 6, 5]].double().std(correction=0)
    assert embedding_spread(model, rows) == pytest.approx(float(expected))


def test_windows_are_centred_and_cut():
    assert [list(restored_layers(at, 3, 5)) for at in (0, 2, 4)] == [[0, 1], [1, 2, 3], [3, 4]]
    assert list(restored_layers(24, 10, 48)) == list(range(19, 29))  # as in the published code


@pytest.mark.parametrize(("depth", "length"), [(2, 1), (4, 1), (12, 2), (30, 4), (32, 4), (48, 6), (80, 9)])
def test_as_many_layers_as_published_settings_have(depth, length):
    assert window_length(depth) == length


def test_the_chosen_window_has_the_largest_sum():
    assert choose_layers([0.0, 0.5, 0.0, 0.3, 0.3, 0.3, 0.0], 3) == [3, 4, 5]
    assert choose_layers([0.0, 0.5, 0.0, 0.3, 0.3, 0.3, 0.0], 1) == [1]
    assert choose_layers([0.1, 0.1, 0.1, 0.1], 2) == [0, 1]
    assert choose_layers([0.1] * 12) == [0, 1]
    assert choose_layers([0.3]) == [0]


def test_the_last_block_is_never_chosen():
    assert choose_layers([0.0, 0.1, 0.2, 9.0], 2) == [1, 2]
    assert choose_layers([0.1, 9.0]) == [0]


@pytest.mark.parametrize(
    ("aie", "count", "words"),
    [
        ([0.1, 0.2], 2, "between 1 and 1"),
        ([0.1, 0.2], 0, "between 1 and 1"),
        ([], None, "of 0 layers"),
        ([0.1, float("nan"), 0.2], 1, "not finite"),
        ([0.0, -0.1, 0.0], 1, "by depth"),
        ([0.0, 0.0, 0.0], 1, "by depth"),
    ],
)
def test_what_cannot_be_chosen_is_told(aie, count, words):
    with pytest.raises(SettingError, match=words):
        choose_layers(aie, count)
