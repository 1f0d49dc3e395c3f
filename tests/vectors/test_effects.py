"""Which heads carry a task: fast routes against whole forward passes, and a network whose one causal head is known."""

import pytest
import torch

import tiny as models
from perdure.errors import ModelError, SettingError
from perdure.models import layout_of
from perdure.vectors.activations import function_vector, head_outputs, mean_activations
from perdure.vectors.comparison import similarity
from perdure.vectors.effects import attributed, indirect_effects, naive_effects, strongest
from perdure.vectors.last_token import LastToken, Patch
from perdure.vectors.prompts import Prompt

PROMPTS = [Prompt((5, 9, 3, 7, 21, 8), (17,)), Prompt((11, 4, 30, 2), (90,)), Prompt((40, 41, 42, 43, 44), (6,))]
LONG = [Prompt((5, 9, 3, 7), (17, 20, 4)), Prompt((11, 4, 30, 2, 8, 8), (90, 3))]


def means_of(layout, seed=0):
    shape = (len(layout), layout.heads, layout.head_dim)
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("prompts", "scored"), [(PROMPTS, "first"), (LONG, "first"), (LONG, "answer")])
def test_one_token_on_a_cache_is_the_whole_forward_pass(family, prompts, scored):
    model = family[0].double() if scored == "answer" else family[0]
    mean_LHK = means_of(layout_of(model))
    fast = indirect_effects(model, prompts, mean_LHK, scored=scored)
    slow = naive_effects(model, prompts, mean_LHK, scored=scored)
    assert slow.abs().max() > 1e-4
    assert (fast - slow).abs().max() < 1e-6


def test_small_passes_give_the_same_effects(tiny, monkeypatch):
    model, _ = tiny
    mean_LHK = means_of(layout_of(model))
    whole = indirect_effects(model, PROMPTS, mean_LHK)
    monkeypatch.setattr("perdure.vectors.last_token._CPU_ROWS", 3)
    torch.testing.assert_close(indirect_effects(model, PROMPTS, mean_LHK), whole, rtol=0, atol=1e-7)


def test_a_heads_own_value_changes_nothing(family):
    model, _ = family
    run = LastToken(model, PROMPTS[0])
    patches = [Patch(layer, head, run.head_LHK[layer, head]) for layer in range(4) for head in range(4)]
    torch.testing.assert_close(run.log_probs(patches), run.log_prob_N.expand(16, 1), rtol=0, atol=5e-6)


def test_adding_nothing_changes_nothing_and_a_vector_is_what_it_is_in_a_whole_pass(family):
    model, _ = family
    layout, run = layout_of(model), LastToken(model, LONG[0])
    vector_D = torch.randn(layout.d_model, generator=torch.Generator().manual_seed(1))
    found_RN = run.log_probs([Patch(2, None, vector_D * 0), Patch(1, None, vector_D), Patch(3, None, vector_D)])
    torch.testing.assert_close(found_RN[0], run.log_prob_N, rtol=0, atol=1e-6)
    for row, layer in ((1, 1), (2, 3)):

        def add(_module, _args, output):
            hidden = output if isinstance(output, torch.Tensor) else output[0]
            hidden = hidden.clone()
            hidden[:, len(LONG[0].ids) - 1] += vector_D
            return hidden if isinstance(output, torch.Tensor) else (hidden, *output[1:])

        hook = layout.blocks[layer].register_forward_hook(add)
        logits = model(torch.tensor([LONG[0].read])).logits[0, len(LONG[0].ids) - 1 :]
        hook.remove()
        wanted = logits.log_softmax(1).gather(1, torch.tensor(LONG[0].answer)[:, None])[:, 0]
        torch.testing.assert_close(found_RN[row], wanted, rtol=0, atol=1e-5)


def test_the_gradient_is_that_of_a_small_step(family):
    model, _ = family
    run = LastToken(model.double(), LONG[0])
    gradient_LHK = run.gradient("answer")
    step = torch.zeros_like(run.head_LHK[1, 2])
    step[0] = 1e-3  # norms work in float32 even here
    up, down = (run.log_probs([Patch(1, 2, run.head_LHK[1, 2] + sign * step)]).sum() for sign in (1, -1))
    assert float(gradient_LHK[1, 2, 0]) == pytest.approx(float(up - down) / 2e-3, rel=2e-2, abs=2e-4)
    assert all(not parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_the_gradient_of_a_small_probability_is_not_lost_in_half_precision(dtype):
    """Of p < 1e-7 itself nothing is left in float16: every head would count the same."""
    model = models.llama()
    model.model.norm.weight.data *= 4
    ids = tuple(range(5, 40))
    logits_V = model(torch.tensor([ids])).logits[0, -1].log_softmax(0)
    answer = int(logits_V.argsort()[60])
    assert float(logits_V[answer].exp()) < 1e-7
    wanted = LastToken(model, Prompt(ids, (answer,))).gradient("first").flatten()
    found = LastToken(model.to(dtype), Prompt(ids, (answer,))).gradient("first").flatten()
    assert similarity(wanted, found) > 0.99
    assert float(found.norm() / wanted.norm()) == pytest.approx(1, rel=0.3)  # p itself is rounded


def test_the_prefilter_runs_the_most_promising_and_estimates_the_rest(family):
    model, _ = family
    mean_LHK = means_of(layout_of(model)) * 0.3
    exact = indirect_effects(model, PROMPTS, mean_LHK)
    some = indirect_effects(model, PROMPTS, mean_LHK, prefilter=6)
    estimates = torch.stack([attributed(LastToken(model, prompt), mean_LHK).cpu() for prompt in PROMPTS]).double()
    chosen = strongest(estimates.mean(0), 6)
    for layer in range(4):
        for head in range(4):
            wanted = exact if (layer, head) in chosen else estimates
            torch.testing.assert_close(some[:, layer, head], wanted[:, layer, head], rtol=0, atol=1e-6)
    assert torch.equal(indirect_effects(model, PROMPTS, mean_LHK, prefilter=999), exact)


def test_a_prefilter_of_no_heads_is_refused(tiny):
    with pytest.raises(SettingError, match="prefilter is 0"):
        indirect_effects(tiny[0], PROMPTS, means_of(layout_of(tiny[0])), prefilter=0)


def test_a_model_that_does_not_use_the_projections_that_were_found_is_refused(tiny):
    """A patch there would change nothing, unseen."""
    model, layout = tiny[0], layout_of(tiny[0])
    attention = model.model.layers[2].self_attn
    attention.forward = lambda hidden_states, *_args, **_more: (hidden_states * 0, None)
    with pytest.raises(ModelError, match="never reached"):
        indirect_effects(model, PROMPTS, means_of(layout))


def test_a_prompt_of_one_token_is_refused(tiny):
    with pytest.raises(ModelError, match="one token"):
        LastToken(tiny[0], Prompt((3,), (4,)))


def causal_toy(place=(2, 1), answer=77):
    """A Llama whose MLPs and heads write nothing, but for one head, whose first number writes the answer."""
    model = models.llama().double()
    layout = layout_of(model)
    layer, head = place
    for block in range(len(layout)):
        layout.mlp_out[block].module.weight.data.zero_()
        layout.attention_out[block].module.weight.data.zero_()
    weight = layout.attention_out[layer].module.weight.data
    weight[:, head * layout.head_dim] = model.get_input_embeddings().weight.data[answer]
    return model, layout


def test_in_a_network_with_one_causal_head_all_others_have_no_effect_at_all():
    model, layout = causal_toy()
    mean_LHK = means_of(layout).double()
    mean_LHK[2, 1, 0] = 50
    prompts = [Prompt((5, 9, 3, 7), (77,)), Prompt((60, 2, 31), (77,))]
    for found in (indirect_effects(model, prompts, mean_LHK), naive_effects(model, prompts, mean_LHK)):
        others = found.mean(0).clone()
        assert others[2, 1] > 0.1
        others[2, 1] = 0
        assert torch.count_nonzero(others) == 0
    assert strongest(found.mean(0), 1) == [(2, 1)]
    vector_D = function_vector(layout, mean_LHK, [(2, 1)])
    for prompt in prompts:
        for layer in (2, 3):
            assert LastToken(model, prompt).choices([Patch(layer, None, vector_D)]) == [77]
            assert LastToken(model, prompt).choices([Patch(layer, None, vector_D * 0)]) != [77]


def test_attribution_is_exact_where_the_score_is_linear_in_the_heads():
    """Without a norm and with a logit as the score: the gradient times the difference is the whole effect."""
    model, layout = causal_toy()
    model.model.norm = torch.nn.Identity()
    run, mean_LHK = LastToken(model, Prompt((5, 9, 3, 7), (77,))), means_of(layout).double()
    probes = [torch.zeros(1, part.d_in, dtype=torch.float64, requires_grad=True) for part in layout.attention_out]
    hooks = [
        part.module.register_forward_pre_hook(lambda _m, args, probe=probe: (args[0] + probe,))
        for part, probe in zip(layout.attention_out, probes, strict=True)
    ]
    ids = torch.tensor([[5, 9, 3, 7]])
    plain = model(ids).logits[0, -1, 77]
    gradient = torch.cat(torch.autograd.grad(plain, probes)).unflatten(1, (layout.heads, layout.head_dim))
    for hook in hooks:
        hook.remove()
    estimate_LH = ((mean_LHK - run.head_LHK) * gradient).sum(2)

    def patched(_module, args):
        changed = args[0].clone()
        changed[0, -1, layout.head_dim : 2 * layout.head_dim] = mean_LHK[2, 1]
        return (changed,)

    hook = layout.attention_out[2].module.register_forward_pre_hook(patched)
    effect = model(ids).logits[0, -1, 77] - plain
    hook.remove()
    assert float(estimate_LH[2, 1].detach()) == pytest.approx(float(effect.detach()), rel=1e-10)


def test_permuting_heads_permutes_their_effects():
    model = models.gpt2()
    layout, size = layout_of(model), layout_of(model).head_dim
    mean_LHK, order = means_of(layout), [2, 0, 3, 1]
    before = indirect_effects(model, PROMPTS, mean_LHK)
    for block in model.transformer.h:
        columns = torch.cat([torch.arange(head * size, (head + 1) * size) for head in order])
        whole = torch.cat([columns + part * 32 for part in range(3)])
        block.attn.c_attn.weight.data = block.attn.c_attn.weight.data[:, whole]
        block.attn.c_attn.bias.data = block.attn.c_attn.bias.data[whole]
        block.attn.c_proj.weight.data = block.attn.c_proj.weight.data[columns]
    after = indirect_effects(model, PROMPTS, mean_LHK[:, order])
    torch.testing.assert_close(after, before[:, :, order], rtol=0, atol=1e-6)


def test_the_heads_of_a_layer_and_its_bias_are_what_the_projection_gives(family):
    model, _ = family
    layout, mean_LHK = layout_of(model), means_of(layout_of(model))
    for layer in range(len(layout)):
        module = layout.attention_out[layer].module
        if getattr(module, "bias", None) is not None:
            module.bias.data.normal_(generator=torch.Generator().manual_seed(layer))
        wanted = module(mean_LHK[layer].flatten()[None])[0].double()
        bias = 0 if getattr(module, "bias", None) is None else module.bias.double()
        torch.testing.assert_close(
            head_outputs(layout, layer, mean_LHK[layer]).sum(0) + bias, wanted, rtol=0, atol=1e-5
        )
        every = [(layer, head) for head in range(layout.heads)]
        torch.testing.assert_close(function_vector(layout, mean_LHK, every), wanted, rtol=0, atol=1e-5)


def test_a_bias_counts_once_for_a_layer():
    model = models.gpt2()
    layout = layout_of(model)
    layout.attention_out[1].module.bias.data.fill_(1.0)
    layout.attention_out[2].module.bias.data.fill_(10.0)
    found = function_vector(layout, torch.zeros(4, 4, 8), [(1, 0), (1, 3), (2, 2)])
    assert torch.equal(found, torch.full((32,), 11.0, dtype=torch.float64))


@pytest.mark.parametrize("scored", ["first", "answer"])
def test_only_prompts_that_are_answered_rightly_count_towards_the_mean(family, scored):
    model, _ = family
    right = [Prompt(prompt.ids, tuple(LastToken(model, prompt).chosen_N.tolist())) for prompt in PROMPTS]
    if scored == "answer":
        right = [
            Prompt(
                prompt.ids,
                (*prompt.answer, int(model(torch.tensor([[*prompt.ids, *prompt.answer]])).logits[0, -1].argmax())),
            )
            for prompt in right
        ]
    wrong = Prompt(PROMPTS[1].ids, (right[1].answer[0] + 1, 3))
    found = mean_activations(model, [right[0], wrong, right[2]], scored=scored)
    assert found.right == (True, False, True)
    wanted = (LastToken(model, right[0]).head_LHK + LastToken(model, right[2]).head_LHK) / 2
    torch.testing.assert_close(found.mean_LHK, wanted, rtol=0, atol=1e-5)
    assert torch.count_nonzero(mean_activations(model, [wrong], scored=scored).mean_LHK) == 0
