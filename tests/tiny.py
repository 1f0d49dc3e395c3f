"""Random models of a few thousand parameters and a byte-level tokenizer, built in memory."""

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoConfig,
    GPTNeoForCausalLM,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
)

VOCAB = 260
DEPTH = 4


def tokenizer():
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {"<s>": 0, "</s>": 1, **{char: index + 2 for index, char in enumerate(alphabet)}}
    made = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>", eos_token="</s>")


def _common(**more):
    return dict(vocab_size=VOCAB, bos_token_id=0, eos_token_id=1, **more)


def llama(seed=0, **more):
    torch.manual_seed(seed)
    config = LlamaConfig(
        **_common(
            hidden_size=32, intermediate_size=48, num_hidden_layers=DEPTH, num_attention_heads=4,
            num_key_value_heads=2, max_position_embeddings=512, tie_word_embeddings=True, initializer_range=0.2,
        )
        | more
    )  # fmt: skip
    return LlamaForCausalLM(config).eval().requires_grad_(False)


def qwen3(seed=0):
    torch.manual_seed(seed)
    config = Qwen3Config(
        **_common(
            hidden_size=32, intermediate_size=48, num_hidden_layers=DEPTH, num_attention_heads=4,
            num_key_value_heads=2, head_dim=16, max_position_embeddings=512, initializer_range=0.2,
        )
    )  # fmt: skip
    return Qwen3ForCausalLM(config).eval().requires_grad_(False)


def gpt2(seed=0):
    torch.manual_seed(seed)
    config = GPT2Config(**_common(n_embd=32, n_layer=DEPTH, n_head=4, n_positions=512, initializer_range=0.2))
    return GPT2LMHeadModel(config).eval().requires_grad_(False)


def neox(seed=0):
    torch.manual_seed(seed)
    config = GPTNeoXConfig(
        **_common(
            hidden_size=32, intermediate_size=48, num_hidden_layers=DEPTH, num_attention_heads=4,
            max_position_embeddings=512, initializer_range=0.2,
        )
    )  # fmt: skip
    return GPTNeoXForCausalLM(config).eval().requires_grad_(False)


def mistral(seed=0, window=16):
    """A model whose layers look back over a few tokens only."""
    torch.manual_seed(seed)
    config = MistralConfig(
        **_common(
            hidden_size=32, intermediate_size=48, num_hidden_layers=DEPTH, num_attention_heads=4,
            num_key_value_heads=2, max_position_embeddings=512, initializer_range=0.2, sliding_window=window,
        )
    )  # fmt: skip
    return MistralForCausalLM(config).eval().requires_grad_(False)


def gpt_neo(seed=0, window=16):
    """A model of which every other layer looks back over a few tokens only."""
    torch.manual_seed(seed)
    config = GPTNeoConfig(
        **_common(
            hidden_size=32, intermediate_size=48, num_layers=DEPTH, num_heads=4, max_position_embeddings=512,
            initializer_range=0.2, attention_types=[[["global", "local"], DEPTH // 2]], window_size=window,
        )
    )  # fmt: skip
    return GPTNeoForCausalLM(config).eval().requires_grad_(False)


FAMILIES = {"llama": llama, "qwen3": qwen3, "gpt2": gpt2, "neox": neox}


LORA_ON = {
    "llama": ["down_proj", "q_proj"],
    "qwen3": ["down_proj", "o_proj"],
    "gpt2": ["c_proj", "c_attn"],
    "gpt_neox": ["dense_4h_to_h", "query_key_value"],
}


def with_lora(model, seed=0):
    """The model inside a PeftModel, with a random LoRA adapter of rank 4 on its MLPs and attention."""
    from peft import LoraConfig, get_peft_model

    kind = model.config.model_type
    config = LoraConfig(
        r=4,
        target_modules=LORA_ON[kind],
        init_lora_weights=False,
        fan_in_fan_out=kind == "gpt2",
        task_type="CAUSAL_LM",
    )
    torch.manual_seed(seed)
    return get_peft_model(model, config).eval()
