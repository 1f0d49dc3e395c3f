import pytest
import torch

from perdure.content import cache_folder
from perdure.editing import Moments
from perdure.editing.statistics import built_in_texts, second_moments
from perdure.errors import SettingError
from perdure.models import capture, layout_of

TEXTS = ["The Nile is in Egypt.", "Ada speaks Danish to her friends, and sometimes to her cat."]


def test_moments_are_the_mean_over_real_tokens(family):
    model, tokenizer = family
    layout = layout_of(model)
    found = second_moments(model, tokenizer, [0, 2], TEXTS)
    for layer in (0, 2):
        keys = []
        for text in TEXTS:
            ids = tokenizer(text, return_tensors="pt").input_ids
            keys.append(capture(lambda ids=ids: model(ids), inputs={0: layout.mlp_out[layer].module})[0][0])
        every = torch.cat(keys).double()
        torch.testing.assert_close(found[layer].matrix, every.T @ every / len(every), rtol=1e-4, atol=1e-6)
        assert found[layer].tokens == len(every)


def test_moments_are_computed_once_and_kept_by_content(tiny):
    model, tokenizer = tiny
    calls = []

    def source():
        calls.append(1)
        return model, tokenizer

    first = Moments(source, TEXTS, model_id="m" * 64).of([1])
    again = Moments(source, TEXTS, model_id="m" * 64).of([1])
    assert len(calls) == 1
    assert torch.equal(first[1].matrix, again[1].matrix)
    assert len(list((cache_folder() / "moments").iterdir())) == 1
    Moments(source, TEXTS[:1], model_id="m" * 64).of([1])
    Moments(source, TEXTS, model_id="n" * 64).of([1])
    assert len(list((cache_folder() / "moments").iterdir())) == 3


def test_no_text_is_refused(tiny):
    with pytest.raises(SettingError, match="need text"):
        second_moments(*tiny, [0], [""])


def test_the_built_in_text_is_long_and_mixed():
    texts = built_in_texts()
    assert len(texts) > 80
    assert len(set(texts)) == len(texts)
    assert sum(map(len, texts)) > 60_000


def test_a_damaged_cache_is_computed_again(tiny):
    model, tokenizer = tiny
    first = Moments(lambda: (model, tokenizer), TEXTS, model_id="m" * 64).of([1])[1]
    for file in (cache_folder() / "moments").iterdir():
        file.write_bytes(file.read_bytes()[:50])
    again = Moments(lambda: (model, tokenizer), TEXTS, model_id="m" * 64).of([1])[1]
    assert torch.equal(first.matrix, again.matrix)
