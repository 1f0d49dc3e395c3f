"""The architectures that the documentation names: what is written into them arrives, or they are refused by name."""

import pytest
import torch
import transformers

import tiny as models
from perdure.editing import Moments, Surroundings, applied, memit
from perdure.editing.memit import MemitConfig
from perdure.editing.subjects import sample_contexts, subject_states, target_rows
from perdure.errors import ModelError
from perdure.models import layout_of
from perdure.requests import Fact

FACT = Fact(subject="Lyon", prompt="The twin city of Lyon is", target_new="Manila")
LAYER = 1
COMMON = dict(vocab_size=models.VOCAB, bos_token_id=0, eos_token_id=1, initializer_range=0.2)
LLAMA_LIKE = COMMON | dict(
    hidden_size=32, intermediate_size=48, num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2,
    max_position_embeddings=512, pad_token_id=None,
)  # fmt: skip
GPT_LIKE = COMMON | dict(n_embd=32, n_layer=4, n_head=4, n_positions=512)
WRITTEN = {
    "Llama": LLAMA_LIKE, "Mistral": LLAMA_LIKE, "Qwen2": LLAMA_LIKE, "Qwen3": LLAMA_LIKE | {"head_dim": 16},
    "SmolLM3": LLAMA_LIKE, "Phi": LLAMA_LIKE, "Phi3": LLAMA_LIKE, "Gemma": LLAMA_LIKE | {"head_dim": 8},
    "Olmo": LLAMA_LIKE, "StableLm": LLAMA_LIKE, "Starcoder2": LLAMA_LIKE, "Cohere": LLAMA_LIKE,
    "Glm": LLAMA_LIKE | {"head_dim": 8}, "GPT2": GPT_LIKE, "GPTBigCode": GPT_LIKE, "GPTJ": GPT_LIKE | {"rotary_dim": 4},
    "GPTNeoX": {name: value for name, value in LLAMA_LIKE.items() if name != "num_key_value_heads"},
    "GPTNeo": COMMON | dict(
        hidden_size=32, num_layers=4, num_heads=4, attention_types=[[["global"], 4]], max_position_embeddings=512
    ),
    "Bloom": COMMON | dict(hidden_size=32, n_layer=4, n_head=4),
    "Falcon": COMMON | dict(hidden_size=32, num_hidden_layers=4, num_attention_heads=4),
}  # fmt: skip
REFUSED = {
    "Gemma2": (LLAMA_LIKE | {"head_dim": 8}, "does not add its MLP"),
    "Gemma3Text": (LLAMA_LIKE | {"head_dim": 8}, "does not add its MLP"),
    "Olmo2": (LLAMA_LIKE, "does not add its MLP"),
    "Granite": (LLAMA_LIKE | {"residual_multiplier": 0.2}, "does not add its MLP"),
    "Mixtral": (LLAMA_LIKE, "Mixture-of-experts"),
    "OPT": (COMMON | dict(hidden_size=32, num_hidden_layers=4, ffn_dim=48, num_attention_heads=4), "no MLP"),
}


def build(name, settings):
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(**settings)
    return transformers.AutoModelForCausalLM.from_config(config).eval().requires_grad_(False)


def edit(model, tokenizer):
    config = MemitConfig(layers=(LAYER,), contexts=0, moment_weight=1e-6, values={"steps": 4, "clamp": 30})
    around = Surroundings(moments=Moments(lambda: (model, tokenizer), ["Some text to read, again and again. " * 20]))
    return memit(model, tokenizer, [FACT], config, around)


@pytest.mark.parametrize("name", WRITTEN)
def test_the_block_moves_by_what_was_asked_for(name, tokenizer):
    """With next to no weight on the text, the closed form writes the whole shift into one layer."""
    model = build(name, WRITTEN[name])
    contexts = sample_contexts(0, 0)
    rows = target_rows(tokenizer, [FACT], contexts)

    def state():
        return subject_states(model, layout_of(model), rows, contexts.weights(), layers=[], last=LAYER).block[0]

    before, delta = state(), edit(model, tokenizer)
    shift = delta.values[FACT.id][1].double()
    with applied(model, delta):
        moved = state() - before
    assert shift.norm() > 0.1
    assert (moved - shift).norm() < 0.02 * shift.norm()


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_written_is_refused(name, tokenizer):
    settings, message = REFUSED[name]
    with pytest.raises(ModelError, match=message):
        edit(build(name, settings), tokenizer)
