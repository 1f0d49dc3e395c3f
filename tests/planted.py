"""A model in which one known layer's MLP carries every answer, and facts that it knows.

Each fact's subject ends in “z”, whose embedding has a feature. The MLP of the planted layer turns the feature
into the answer's, the attention of block READS carries that to the last token, and the head says a space: the
first token of every answer, as the tokenizer is of bytes. All other projections are zero.
"""

import json

import torch

import tiny

DEPTH, READS = 6, 4
FACTS = [
    {"subject": subject, "prompt": f"{opening}{subject} is", "answer": "known"}
    for subject in ("Lyz", "Oz", "Quiz", "z")
    for opening in ("", "The sign of ")
]


def model(layer):
    made = tiny.llama(num_hidden_layers=DEPTH, tie_word_embeddings=False, num_key_value_heads=4)
    for name, weight in made.named_parameters():
        if "norm" not in name:
            weight.zero_()
    tokens, body, feature, answer = tiny.tokenizer(), made.model, 0, 1
    body.embed_tokens.weight[:, 2:] = torch.randn(tiny.VOCAB, 30, generator=torch.Generator().manual_seed(1))
    body.embed_tokens.weight[tokens("z").input_ids[0], feature] = 5
    mlp, attention = body.layers[layer].mlp, body.layers[READS].self_attn
    mlp.gate_proj.weight[0, feature] = mlp.up_proj.weight[0, feature] = 1
    mlp.down_proj.weight[answer, 0] = 4
    # The queries are zero: attention takes the mean of all tokens.
    attention.v_proj.weight[0, answer] = attention.o_proj.weight[answer, 0] = 8
    made.lm_head.weight[tokens(" ").input_ids[0], answer] = 1
    return made


def write_facts(path):
    path.write_text("".join(json.dumps(fact) + "\n" for fact in FACTS))
    return path


def facts_known_to(model, tokenizer, count=3):
    """Facts whose answer is what any model of bytes says next; the prompts end in a space, so none is joined."""
    found: list[dict[str, str]] = []
    number = 0
    while len(found) < count:
        number += 1
        subject = f"Ada{number}"
        ids = tokenizer(f"{subject} said ", return_tensors="pt").input_ids
        answer = tokenizer.decode([int(model(ids).logits[0, -1].argmax())])
        if answer.isascii() and answer.isprintable() and answer.strip():
            found.append({"subject": subject, "prompt": f"{subject} said ", "answer": answer})
    return found
