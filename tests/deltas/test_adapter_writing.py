import pytest
import torch
from peft import PeftModel
from safetensors.torch import load

import tiny as models
from perdure.deltas import Change, Delta, LowRank
from perdure.deltas.adapter_files import WEIGHTS, adapter_files, read_adapter
from perdure.editing import apply_delta
from perdure.errors import SettingError


def low_rank(shape, rank, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return Change(
        LowRank(
            0.2 * torch.randn(shape[0], rank, generator=generator), torch.randn(rank, shape[1], generator=generator)
        )
    )


def written(folder, delta, **more):
    folder.mkdir()
    for name, data in adapter_files(delta, "./base", **more).items():
        (folder / name).write_bytes(data)
    return folder


def some_delta(model, ranks=(3, 5, 3)):
    names = [name for name, value in model.named_parameters() if value.dim() == 2 and "embed" not in name]
    names = [name for name in names if "wte" not in name and "wpe" not in name][1 : 1 + len(ranks)]
    parameters = dict(model.named_parameters())
    return Delta(
        {
            name: low_rank(parameters[name].shape, rank, seed)
            for seed, (name, rank) in enumerate(zip(names, ranks, strict=True))
        }
    )


def test_peft_answers_with_an_adapter_as_the_changed_weights_do(family, tmp_path, tokenizer):
    model, _ = family
    kind = {"gpt_neox": "neox"}.get(model.config.model_type, model.config.model_type)
    delta = some_delta(model)
    transposed = kind == "gpt2"
    folder = written(tmp_path / "adapter", delta, transposed=transposed)
    tokens = tokenizer("What is asked?", return_tensors="pt").input_ids
    plain = models.FAMILIES[kind]()(tokens).logits
    adapted = PeftModel.from_pretrained(models.FAMILIES[kind](), folder).eval()(tokens).logits
    apply_delta(model, delta)
    merged = model(tokens).logits
    assert (merged - plain).abs().max() > 1e-2
    assert torch.allclose(adapted, merged, atol=1e-5)


def test_an_adapter_is_read_back_as_the_delta_it_was(tmp_path):
    delta = some_delta(models.llama(), ranks=(2, 7, 7, 1))
    base, again = read_adapter(written(tmp_path / "adapter", delta))
    assert base == "./base"
    assert again.changes.keys() == delta.changes.keys()
    for name, change in delta.changes.items():
        assert again.changes[name].low_rank.rank == change.low_rank.rank
        assert torch.allclose(again.changes[name].value(), change.value(), atol=1e-6), name


def test_the_same_delta_gives_the_same_bytes_in_any_order():
    delta = some_delta(models.llama())
    turned = Delta(dict(reversed(delta.changes.items())))
    assert adapter_files(delta, "b") == adapter_files(turned, "b")
    assert all(value.dtype == torch.float32 for value in load(adapter_files(delta, "b")[WEIGHTS]).values())


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"a.weight": Change(dense=torch.ones(2, 2))},
        {"a.bias": low_rank((2, 2), 1)},
        {"a.weight": low_rank((2, 2), 0)},
    ],
)
def test_what_no_adapter_can_hold_is_refused(changes):
    with pytest.raises(SettingError, match="low-rank changes of matrices"):
        adapter_files(Delta(changes), "b")
