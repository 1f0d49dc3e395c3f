"""Examples as rows of tokens, and one forward pass over them."""

import pytest
import torch
from transformers import LlamaForCausalLM

import tiny
import tuning_tasks
from perdure.errors import ModelError, RequestError
from perdure.requests.tasks import Example, Message
from perdure.tuning.encoding import IGNORED, Row, collate, row_of, rows_of
from perdure.tuning.forward import forward, watching
from perdure.tuning.reading import batched, read_all
from perdure.tuning.token_run import packed, unpacked

CHAT = (
    "{% for message in messages %}<|{{ message.role }}|>\n{{ message.content }}</s>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
WITH_SYSTEM = "{% if messages[0].role != 'system' %}<|system|>\nBe kind.</s>\n{% endif %}" + CHAT
ONE_TURN = "{% for message in messages %}{{ loop.length }}{{ message.content }}{% endfor %}"


@pytest.fixture
def chat():
    made = tiny.tokenizer()
    made.chat_template = CHAT
    return made


def talk(*said, **more):
    roles = {"s": "system", "u": "user", "a": "assistant"}
    return Example(messages=tuple(Message(role=roles[who], content=text) for who, text in said), **more)


def learnt(tokenizer, row):
    """The text of the tokens that the loss is on, in runs."""
    runs, before = [], False
    for token, learns in zip(row.ids, row.learns, strict=True):
        if learns:
            runs = [*runs, [token]] if not before else [*runs[:-1], [*runs[-1], token]]
        before = learns
    return [tokenizer.decode(run) for run in runs]


def text(tokenizer, ids):
    return tokenizer.decode(list(ids))


def test_the_assistants_words_and_the_end_of_its_turn_are_learnt(chat):
    row = row_of(chat, talk(("u", "Where is it?"), ("a", "In the box.")))
    assert text(chat, row.ids) == "<|user|>\nWhere is it?</s>\n<|assistant|>\nIn the box.</s>\n"
    assert learnt(chat, row) == ["In the box.</s>"]
    assert text(chat, row.ids[: row.asked + 1]).endswith("<|assistant|>\n")
    assert row.learns[row.asked + 1]


def test_every_turn_of_the_assistant_is_learnt_and_nothing_else(chat):
    row = row_of(chat, talk(("s", "Be short."), ("u", "One?"), ("a", "1"), ("u", "Two?"), ("a", "2")))
    assert learnt(chat, row) == ["1</s>", "2</s>"]
    assert text(chat, row_of(chat, talk(("u", "One?"), ("a", "1"))).prompt) == "<|user|>\nOne?</s>\n<|assistant|>\n"
    assert text(chat, row.ids[: row.asked + 1]).endswith("Two?</s>\n<|assistant|>\n")


def test_a_system_prompt_that_the_template_adds_is_read_and_not_learnt(chat):
    chat.chat_template = WITH_SYSTEM
    with_own = row_of(chat, talk(("s", "Be short."), ("u", "One?"), ("a", "1")))
    without = row_of(chat, talk(("u", "One?"), ("a", "1")))
    assert text(chat, without.ids).startswith("<|system|>\nBe kind.</s>\n")
    assert "Be kind" not in text(chat, with_own.ids)
    assert learnt(chat, with_own) == learnt(chat, without) == ["1</s>"]


@pytest.mark.parametrize("answer", ["naïve café", "日本語です", "👍🏽", "ends with space ", "\nstarts below"])
def test_answers_of_any_characters_are_learnt_whole(chat, answer):
    row = row_of(chat, talk(("u", "?"), ("a", answer)))
    (found,) = learnt(chat, row)
    assert found == answer + "</s>"


def test_prompt_and_completion_stand_one_after_the_other_whatever_the_template(chat):
    row = row_of(chat, talk(("u", "river:"), ("a", "RIVER"), plain=True))
    assert text(chat, row.ids) == "river: RIVER</s>"
    assert learnt(chat, row) == [" RIVER</s>"]
    assert text(chat, row.ids[: row.asked + 1]) == "river:"


def test_without_a_template_turns_stand_a_blank_line_apart_and_the_last_answer_is_learnt(tokenizer):
    row = row_of(tokenizer, talk(("s", "Be short."), ("u", "One?"), ("a", "1"), ("u", "Two?"), ("a", "2")))
    assert text(tokenizer, row.ids) == "Be short.\n\nOne?\n\n1\n\nTwo? 2</s>"
    assert learnt(tokenizer, row) == [" 2</s>"]


def test_a_template_that_rewrites_what_it_said_is_refused(chat):
    chat.chat_template = ONE_TURN
    with pytest.raises(RequestError, match="continuation of its beginning"):
        row_of(chat, talk(("u", "One?"), ("a", "1")))


def test_every_row_that_is_too_long_is_named(chat):
    rows = [talk(("u", "a" * n), ("a", "b"), source=f"file:{n}") for n in (1, 60, 70)]
    with pytest.raises(RequestError, match=r"2 examples .* file:60: \d+ tokens; file:70") as caught:
        rows_of(chat, rows, 50)
    assert len(caught.value.problems) == 2


# One forward pass -----------------------------------------------------------------------------------------------

EXAMPLES = [
    talk(("u", "a"), ("a", "bcd"), plain=True),
    talk(("u", "a longer one that asks"), ("a", "x"), plain=True),
    talk(("u", "hm"), ("a", "a much longer answer"), plain=True),
]


@pytest.fixture
def rows(tokenizer):
    return [row_of(tokenizer, example) for example in EXAMPLES]


def alone(model, row):
    """The loss of one row by itself, without padding: from all logits, by hand."""
    logits_TV = model(torch.tensor([row.ids])).logits[0].float()
    at = torch.tensor([place for place, learns in enumerate(row.learns) if learns and place])
    return torch.nn.functional.cross_entropy(logits_TV[at - 1], torch.tensor(row.ids)[at], reduction="none")


def gradients(model, loss):
    weights = [block for name, block in model.named_parameters() if "layers" in name or ".h." in name]
    return torch.autograd.grad(loss, weights)


def test_padding_on_the_left_changes_neither_losses_nor_gradients(family, rows):
    model, _ = family
    model.requires_grad_(True)
    together = forward(model, collate(rows, range(3))).losses()
    apart = torch.cat([alone(model, row) for row in rows])
    torch.testing.assert_close(together, apart, atol=2e-5, rtol=1e-5)
    for batched_grad, single in zip(gradients(model, together.sum()), gradients(model, apart.sum()), strict=True):
        torch.testing.assert_close(batched_grad, single, atol=2e-4, rtol=2e-4)


def test_what_stands_in_the_padding_does_not_matter(family, rows):
    model, _ = family
    batch = collate(rows, range(3))
    clean = forward(model, batch).losses()
    batch.inputs["input_ids"][~batch.mask] = 77
    torch.testing.assert_close(forward(model, batch).losses(), clean, atol=1e-6, rtol=0)


def test_logits_are_asked_for_where_something_is_learnt_and_are_those_of_the_whole(family, rows, monkeypatch):
    model, _ = family
    batch = collate(rows[:2], range(2))
    asked = []
    head = model.get_output_embeddings()
    head.register_forward_hook(lambda _m, args, _out: asked.append(args[0].shape[1]))
    kept = forward(model, batch)
    monkeypatch.setattr("perdure.tuning.forward._can_keep", lambda _model: False)
    whole = forward(model, batch)
    assert asked == [batch.keep, len(rows[1].ids)]
    assert batch.keep < len(rows[1].ids)
    torch.testing.assert_close(kept.logits_NV, whole.logits_NV, atol=1e-5, rtol=1e-5)
    assert torch.equal(kept.labels_N, whole.labels_N)


def test_a_model_that_cannot_leave_logits_out_is_seen_by_its_signature(tokenizer, rows):
    class Plain(LlamaForCausalLM):
        def forward(self, input_ids, attention_mask, position_ids, use_cache):
            asked.append(input_ids.shape)
            return super().forward(input_ids, attention_mask=attention_mask, position_ids=position_ids)

    whole = tiny.llama(num_hidden_layers=1)
    asked, model = [], Plain(whole.config).eval()
    model.load_state_dict(whole.state_dict())
    batch = collate(rows, range(3))
    torch.testing.assert_close(forward(model, batch).losses(), forward(whole, batch).losses())
    assert asked


def test_losses_stand_row_after_row(family, rows):
    model, _ = family
    seen = forward(model, collate(rows, range(3)))
    assert seen.counts == [sum(row.learns[1:]) for row in rows]
    assert seen.labels_N.tolist() == [t for row in rows for t, on in zip(row.ids, row.learns, strict=True) if on]
    padding = seen.batch.mask.int().argmax(1).tolist()
    assert seen.batch.asked_B.tolist() == [row.asked + pad for row, pad in zip(rows, padding, strict=True)]


def test_a_batch_packed_for_a_loader_is_the_same_batch(rows):
    numbers = [2, 0, 1]
    before, after = collate([rows[number] for number in numbers], numbers), unpacked(packed(rows, numbers))
    assert before.keep == after.keep
    assert before.numbers == after.numbers == numbers
    assert before.inputs.keys() == after.inputs.keys()
    assert torch.equal(before.labels_BT, after.labels_BT)
    assert all(torch.equal(value, after.inputs[name]) for name, value in before.inputs.items())


def test_the_first_token_is_never_learnt():
    assert collate([Row((5, 6, 7), (True, True, True), 0)], [0]).labels_BT.tolist() == [[IGNORED, 6, 7]]
    with pytest.raises(RequestError, match="answer is empty"):
        Row((5, 6), (True, False), 0)


def test_an_empty_answer_is_named(tokenizer, monkeypatch):
    """Such as one of which a tokenizer leaves nothing."""
    monkeypatch.setattr("perdure.tuning.encoding._plain_row", lambda *_: Row((5, 6), (True, False), 0))
    empty = tuning_tasks.UPPER.train[0].model_copy(update={"source": "rows.jsonl:7"})
    with pytest.raises(RequestError, match=r"rows\.jsonl:7: .*the answer is empty"):
        rows_of(tokenizer, [empty], 99)


def test_reading_shows_every_row_once_in_batches_of_like_length(tokenizer, rows):
    model = tiny.llama(num_hidden_layers=1).train()
    numbers = [n for seen in read_all(model, rows * 3, {}, tokens=40) for n in seen.batch.numbers]
    assert sorted(numbers) == list(range(9))
    assert model.training
    assert all(len(b) * max(len((rows * 3)[n].ids) for n in b) <= 40 or len(b) == 1 for b in batched(rows * 3, 40))


# Taps -----------------------------------------------------------------------------------------------------------


def test_taps_see_what_modules_read_and_give(tokenizer, rows):
    model = tiny.llama(num_hidden_layers=2)
    block = model.model.layers[0]
    taps = {"in": (block.mlp.down_proj, "input"), "out": (block.mlp.down_proj, "output")}
    seen = forward(model, collate(rows, range(3)), taps)
    torch.testing.assert_close(block.mlp.down_proj(seen.taps["in"]), seen.taps["out"])


def test_reentrant_checkpointing_is_refused_and_the_other_kind_is_not(tokenizer, rows):
    model = tiny.llama(num_hidden_layers=2).requires_grad_(True).train()
    taps = {"read": (model.model.layers[1].self_attn.o_proj, "input")}
    model.gradient_checkpointing_enable({"use_reentrant": False})
    assert forward(model, collate(rows, range(3)), taps).taps["read"].requires_grad
    model.gradient_checkpointing_enable({"use_reentrant": True})
    with pytest.raises(ModelError, match="reentrant"):
        forward(model, collate(rows, range(3)), taps)


def test_a_module_that_never_ran_is_told():
    with pytest.raises(ModelError, match="never reached"), watching({"x": (torch.nn.Linear(1, 1), "output")}, {}):
        pass
