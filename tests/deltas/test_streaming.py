"""A delta on a checkpoint folder: the same bits as on the live model, whichever way the folder is cut."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

import tiny as models
from perdure.content import digest_tensor
from perdure.deltas import Change, Delta, LowRank, changed
from perdure.deltas.exported import BaseTensor, Contents, ExportedDelta, TensorChange, write_exported
from perdure.deltas.streaming import Applied, apply_to_folder
from perdure.editing import apply_delta
from perdure.errors import EditError, IntegrityError, ModelError, SettingError
from perdure.models import Checkpoint, layout_of, load
from perdure.models.canonical import canonical
from perdure.models.tensor_files import Blank

DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def write(model, tokenizer, folder, shard="20KB"):
    model.save_pretrained(folder, max_shard_size=shard)
    tokenizer.save_pretrained(folder)
    return folder


def delta_for(model, *, dense=True):
    """Low-rank, dense and mixed changes of stored tensors: projections, a norm or bias, the embedding."""
    generator = torch.Generator().manual_seed(3)
    weights = dict(model.named_parameters())
    names = [projection.name for projection in layout_of(model).mlp_out]

    def factors(name, rank):
        rows, columns = weights[name].shape
        return LowRank(torch.randn(rows, rank, generator=generator), torch.randn(rank, columns, generator=generator))

    def full(name):
        return torch.randn(weights[name].shape, generator=generator)

    changes = {names[0]: Change(factors(names[0], 1)), names[1]: Change(factors(names[1], 5))}
    if dense:
        vector = next(name for name, weight in weights.items() if weight.dim() == 1)
        embedding = next(n for n, w in weights.items() if w is model.get_input_embeddings().weight)
        changes |= {name: Change(dense=full(name)) for name in (vector, embedding)}
        changes[names[2]] = Change(factors(names[2], 2), full(names[2]))
    return Delta(changes)


def exported(folder, file, chain, replaced=()):
    """An exported delta of several low-rank deltas after one another, and of tensors that are replaced."""
    base = Checkpoint.open(folder)
    tensors = {name: base.tensor(name) for name in base.entries}
    new, parts = {}, {}
    for name in chain[0].changes:
        new[name] = tensors[name]
        for step in chain:
            new[name] = changed(new[name], step.changes[name])
        pairs = [step.changes[name].low_rank for step in chain]
        parts[name] = [part for pair in pairs for part in (pair.left, pair.right)]
    for name in replaced:
        new[name] = -tensors[name]
        parts[name] = [new[name]]
    contents = Contents(
        base={
            name: BaseTensor(
                hash=digest_tensor(tensor), dtype=str(tensor.dtype).removeprefix("torch."), shape=tuple(tensor.shape)
            )
            for name, tensor in tensors.items()
        },
        changes={
            name: TensorChange(steps=0 if name in replaced else len(chain), hash=digest_tensor(tensor))
            for name, tensor in new.items()
        },
    )
    blanks = {name: [Blank(part.dtype, tuple(part.shape)) for part in held] for name, held in parts.items()}
    write_exported(file, contents, blanks, lambda name, place: parts[name][place])
    return ExportedDelta.open(file), {**tensors, **new}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_bits_are_those_of_the_live_model(family, dtype, tmp_path, monkeypatch):
    monkeypatch.setattr("perdure.deltas.streaming.PIECE_BYTES", 1000)
    model, tokenizer = family
    model = model.to(dtype)
    folder = write(model, tokenizer, tmp_path / "base")
    delta = delta_for(model)
    seen = []
    done = apply_to_folder(folder, delta, tmp_path / "out", progress=lambda *step: seen.append(step))
    before, after = Checkpoint.open(folder), Checkpoint.open(tmp_path / "out")
    assert done == Applied(len(before.entries), len(delta.changes), checked=False)
    assert len(before.shards) > 2
    assert {n: (e.file.name, e.dtype) for n, e in after.entries.items()} == {
        n: (e.file.name, e.dtype) for n, e in before.entries.items()
    }
    assert {file.name for file in (tmp_path / "out").iterdir()} == {file.name for file in folder.iterdir()}
    assert seen[-1][1] == seen[-1][2]
    apply_delta(model, delta)
    loaded, _ = load(tmp_path / "out")
    for (name, weight), (_, found) in zip(model.named_parameters(), loaded.named_parameters(), strict=True):
        assert torch.equal(weight, found), name


def test_one_file_without_an_index_stays_one_file(tiny, tiny_folder, tmp_path):
    model, _ = tiny
    delta = delta_for(model, dense=False)
    apply_to_folder(tiny_folder, delta, tmp_path / "out")
    old, new = load_file(tiny_folder / "model.safetensors"), load_file(tmp_path / "out" / "model.safetensors")
    for name, weight in old.items():
        expected = changed(weight, delta.changes[name]) if name in delta.changes else weight
        assert torch.equal(new[name], expected)


def test_tied_weights_stay_tied(tiny, tiny_folder, tmp_path):
    model, _ = tiny
    assert "lm_head.weight" not in Checkpoint.open(tiny_folder).entries
    name = "model.embed_tokens.weight"
    apply_to_folder(tiny_folder, Delta({name: Change(dense=torch.ones(models.VOCAB, 32))}), tmp_path / "out")
    loaded, _ = load(tmp_path / "out")
    assert torch.equal(loaded.lm_head.weight, model.lm_head.weight + 1)


def test_names_without_the_prefix_of_the_decoder_are_found(tokenizer, tmp_path):
    """As GPT-2 lies on the hub: its names start at "h.0", not at "transformer.h.0"."""
    model = models.gpt2()
    folder = write(model, tokenizer, tmp_path / "base", shard="5GB")
    tensors = {
        name.removeprefix("transformer."): value for name, value in load_file(folder / "model.safetensors").items()
    }
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    delta = delta_for(model, dense=False)
    apply_to_folder(folder, delta, tmp_path / "out")
    apply_delta(model, delta)
    for name, weight in load(tmp_path / "out")[0].named_parameters():
        assert torch.equal(weight, model.get_parameter(name))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_an_exported_delta_is_checked_at_both_ends(tokenizer, dtype, tmp_path, monkeypatch):
    monkeypatch.setattr("perdure.deltas.streaming.PIECE_BYTES", 1000)
    model = models.llama().to(dtype)
    folder = write(model, tokenizer, tmp_path / "base")
    first = delta_for(model, dense=False)
    replaced = ["model.norm.weight", "model.embed_tokens.weight"]
    delta, expected = exported(folder, tmp_path / "delta", [first, first * -0.7, first * 0.1], replaced)
    assert apply_to_folder(folder, delta, tmp_path / "out") == Applied(len(expected), 4, checked=True)
    after = Checkpoint.open(tmp_path / "out")
    assert all(torch.equal(after.tensor(name), tensor) for name, tensor in expected.items())


@pytest.mark.parametrize("name", ["neox", "gpt2"])
def test_an_exported_delta_finds_tensors_under_other_names(name, tokenizer, tmp_path):
    """The base of a workspace has the running model's names; the checkpoint that it came from may have others."""
    model = models.FAMILIES[name]()
    given = write(model, tokenizer, tmp_path / "given", shard="5GB")
    tensors = load_file(given / "model.safetensors")
    save_file({n.removeprefix("transformer."): t for n, t in tensors.items()}, given / "model.safetensors")
    with canonical(Checkpoint.open(given), tmp_path) as base:
        assert base.entries.keys() != Checkpoint.open(given).entries.keys()
        delta, expected = exported(base.folder, tmp_path / "delta", [delta_for(model, dense=False)])
    assert apply_to_folder(given, delta, tmp_path / "out").checked
    for name, weight in load(tmp_path / "out")[0].named_parameters():
        assert torch.equal(weight, expected[name])


@pytest.fixture
def base(tiny, tmp_path):
    model, tokenizer = tiny
    return write(model, tokenizer, tmp_path / "base"), delta_for(model, dense=False)


def nothing_left(folder):
    return not [path for path in folder.iterdir() if path.name == "out" or path.name.endswith(".tmp")]


@pytest.mark.parametrize("name", ["model.layers.0.mlp.down_proj.weight", "model.layers.3.self_attn.q_proj.weight"])
def test_another_base_is_refused_whichever_tensor_differs(base, tmp_path, name):
    folder, delta = base
    opened, _ = exported(folder, tmp_path / "delta", [delta])
    shard = Checkpoint.open(folder).entries[name].file
    tensors = load_file(shard)
    tensors[name].view(-1)[5] += 1e-3
    save_file(tensors, shard, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=f"{name} is not the tensor"):
        apply_to_folder(folder, opened, tmp_path / "out")
    assert nothing_left(tmp_path)


def test_the_base_in_another_dtype_is_refused_before_anything_is_read(base, tokenizer, tmp_path):
    folder, delta = base
    opened, _ = exported(folder, tmp_path / "delta", [delta])
    other = write(models.llama().bfloat16(), tokenizer, tmp_path / "half")
    with pytest.raises(ModelError, match=r"is bfloat16 .* and float32 .* give that base"):
        apply_to_folder(other, opened, tmp_path / "out")


@pytest.mark.parametrize("made", ["qwen3", "gpt2"])
def test_another_architecture_is_refused(base, tokenizer, tmp_path, made):
    folder, delta = base
    opened, _ = exported(folder, tmp_path / "delta", [delta])
    other = write(models.FAMILIES[made](), tokenizer, tmp_path / "other")
    with pytest.raises(ModelError, match=r"of another model|give that base"):
        apply_to_folder(other, opened, tmp_path / "out")
    with pytest.raises(ModelError, match="of another model"):
        apply_to_folder(other, Delta({"model.x.weight": next(iter(delta.changes.values()))}), tmp_path / "out")


def test_a_change_of_another_shape_is_refused(base, tmp_path):
    folder, _ = base
    change = Change(LowRank(torch.ones(3, 1), torch.ones(1, 3)))
    with pytest.raises(ModelError, match=r"shape \[3, 3\]"):
        apply_to_folder(folder, Delta({"model.layers.0.mlp.down_proj.weight": change}), tmp_path / "out")


def test_an_overflow_is_refused_and_leaves_nothing(tokenizer, tmp_path):
    model = models.llama().half()
    folder = write(model, tokenizer, tmp_path / "base")
    with pytest.raises(EditError, match="overflows float16"):
        apply_to_folder(folder, delta_for(model, dense=False) * 1e6, tmp_path / "out")
    assert nothing_left(tmp_path)


def test_a_damaged_delta_is_refused(base, tmp_path):
    folder, delta = base
    exported(folder, tmp_path / "delta", [delta])
    data = bytearray((tmp_path / "delta").read_bytes())
    data[-3] ^= 16
    (tmp_path / "flipped").write_bytes(data)
    with pytest.raises(IntegrityError, match=r"the delta is damaged|NaN"):
        apply_to_folder(folder, ExportedDelta.open(tmp_path / "flipped"), tmp_path / "out")
    (tmp_path / "cut").write_bytes(data[:-40])
    save_file({"a": torch.ones(2)}, tmp_path / "other")
    for name in ("cut", "other", "missing"):
        with pytest.raises(IntegrityError, match="no exported delta"):
            ExportedDelta.open(tmp_path / name)
    assert nothing_left(tmp_path)


def test_a_header_that_promises_other_tensors_is_refused(base, tmp_path):
    folder, delta = base
    opened, _ = exported(folder, tmp_path / "delta", [delta])
    tensors = load_file(tmp_path / "delta")
    tensors.pop(next(iter(tensors)))
    save_file(tensors, tmp_path / "less", metadata={"perdure.exported": opened.contents.model_dump_json()})
    with pytest.raises(IntegrityError, match="not those of its header"):
        ExportedDelta.open(tmp_path / "less")


def test_factors_that_do_not_fit_are_refused(base, tmp_path):
    folder, delta = base
    opened, _ = exported(folder, tmp_path / "delta", [delta])
    tensors = load_file(tmp_path / "delta")
    name = next(name for name in tensors if name.startswith("right/"))
    tensors[name] = tensors[name][:, 1:].contiguous()
    save_file(tensors, tmp_path / "other", metadata={"perdure.exported": opened.contents.model_dump_json()})
    with pytest.raises(IntegrityError, match="do not fit"):
        apply_to_folder(folder, ExportedDelta.open(tmp_path / "other"), tmp_path / "out")


def test_what_is_there_is_never_overwritten(base, tmp_path):
    folder, delta = base
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("mine")
    with pytest.raises(SettingError, match="not an empty folder"):
        apply_to_folder(folder, delta, tmp_path / "full")
    with pytest.raises(SettingError, match="not an empty folder"):
        apply_to_folder(folder, delta, folder)
    assert (tmp_path / "full" / "mine").read_text() == "mine"


def test_an_interruption_leaves_nothing_and_the_next_run_works(base, tmp_path):
    folder, delta = base

    def interrupt(*_step):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        apply_to_folder(folder, delta, tmp_path / "out", progress=interrupt)
    assert nothing_left(tmp_path)
    crashed = tmp_path / ".out.0123456789ab.tmp"  # what a killed process leaves
    crashed.mkdir()
    (crashed / "model.safetensors").write_text("half")
    apply_to_folder(folder, delta, tmp_path / "out")
    assert Checkpoint.open(tmp_path / "out")
    assert not crashed.exists()


def test_nothing_but_model_files_is_copied(base, tmp_path):
    folder, delta = base
    (folder / "notes.py").write_text("print()")
    (folder / "pytorch_model.bin").write_text("x")
    apply_to_folder(folder, delta, tmp_path / "out")
    assert not (tmp_path / "out" / "notes.py").exists()
    assert not (tmp_path / "out" / "pytorch_model.bin").exists()
    assert json.loads((tmp_path / "out" / "config.json").read_text())
    shutil.rmtree(tmp_path / "out")
