import pytest
import torch
from tokenizers.processors import TemplateProcessing

import tiny as models
from perdure.errors import ModelError, RequestError
from perdure.models import chat_prompt, complete
from perdure.models.tokens import batches, encode, encode_pair, join, last_token_of, pad, tokens_between


def test_join_puts_a_space_where_one_is_written():
    assert join("The capital is", "Paris") == "The capital is Paris"
    assert join("首都は", "東京") == "首都は東京"
    assert join("프랑스의 수도는", "파리") == "프랑스의 수도는 파리"
    assert join("ends in space ", "x") == "ends in space x"


@pytest.mark.parametrize("subject", ["Lyon", "王芳", "Zoë", "🙂"])
def test_the_last_token_of_a_subject_holds_its_last_byte(tokenizer, subject):
    text = f"about {subject} we say"
    end = text.index(subject) + len(subject)
    at = last_token_of(tokenizer, text, end)
    before = encode(tokenizer, text[:end])
    assert at == len(before) - 1
    other = subject[:-1] + chr(ord(subject[-1]) + 1)  # differs in the last byte: so must the token
    assert encode(tokenizer, text)[at] != encode(tokenizer, text.replace(subject, other))[at]


def test_an_end_token_that_the_tokenizer_adds_is_left_out():
    ending = models.tokenizer()
    ends = TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)])
    ending.backend_tokenizer.post_processor = ends
    assert ending("Ada")["input_ids"][-1] == 1
    assert ending.decode(encode(ending, "Ada is a")) == "<s>Ada is a"
    ids, start = encode_pair(ending, "Ada lives in", "Rome")
    assert ending.decode(ids[start:]) == " Rome"
    assert ending.decode(encode(ending, "Ada</s>")).endswith("</s>")


def test_a_start_token_that_a_chat_template_writes_is_the_only_one():
    starting = models.tokenizer()
    starts = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    starting.backend_tokenizer.post_processor = starts
    starting.chat_template = "{{ bos_token }}{% for message in messages %}Q: {{ message['content'] }}\nA:{% endfor %}"
    text = chat_prompt(starting, "Who is Zoë?")
    assert starting(text)["input_ids"][:2] == [0, 0]
    assert encode(starting, text) == starting("Q: Who is Zoë?\nA:")["input_ids"]
    ids, start = encode_pair(starting, text, "Ada")
    assert (ids.count(0), starting.decode(ids[start:])) == (1, " Ada")
    end = text.index("Zoë") + 3
    assert starting.decode(ids[: last_token_of(starting, text, end) + 1]).endswith("Zoë")
    assert starting.decode([ids[at] for at in tokens_between(starting, text, end - 3, end)]).strip() == "Zoë"


def test_answers_start_where_the_prompt_ends(tokenizer):
    ids, start = encode_pair(tokenizer, "Ada speaks", "Dutch")
    assert tokenizer.decode(ids[:start]) == "Ada speaks"
    assert tokenizer.decode(ids[start:]) == " Dutch"


def test_padding_is_masked_and_positions_follow_the_row():
    batch = pad([[7, 8], [9]], left=True)
    assert batch.mask.tolist() == [[1, 1], [0, 1]]
    assert batch.positions.tolist() == [[0, 1], [0, 0]]
    rows = [[1] * n for n in (5, 1, 3, 2)]
    seen = [index for batch in batches(rows, tokens=6) for index in batch.rows]
    assert sorted(seen) == [0, 1, 2, 3]
    assert all(batch.ids.numel() <= 6 for batch in batches(rows, tokens=6))
    assert [len(batch.rows) for batch in batches(rows, most=3)] == [3, 1]


@pytest.mark.parametrize(
    ("prompt", "message"), [("", "without any token"), ("a" * 600, "positions"), ("a\udcff", "tokenised")]
)
def test_prompts_that_cannot_be_asked_are_refused(tiny, prompt, message):
    with pytest.raises(RequestError, match=message):
        complete(*tiny, [prompt])


def test_settings_of_the_model_do_not_bend_greedy_answers(tiny):
    model, tokenizer = tiny
    plain = complete(model, tokenizer, ["Ada speaks"], max_new_tokens=12)
    model.generation_config.repetition_penalty = 5.0
    model.generation_config.do_sample = True
    torch.manual_seed(1)
    assert complete(model, tokenizer, ["Ada speaks"], max_new_tokens=12) == plain


def test_an_unknown_device_is_refused(tiny_folder):
    from perdure.models import load

    with pytest.raises(ModelError, match="No device 'nonsense'"):
        load(tiny_folder, device="nonsense")
