import pytest
import torch

from perdure.deltas import Change, Delta, LowRank, changed, difference, load_delta, save_delta
from perdure.errors import IntegrityError, SettingError


def low_rank(rows=6, columns=9, rank=2, seed=0):
    torch.manual_seed(seed)
    return Change(LowRank(torch.randn(rows, rank), torch.randn(rank, columns)))


def test_changed_adds_the_product():
    weight, change = torch.randn(6, 9), low_rank()
    expected = (weight.double() + change.value()).float()
    torch.testing.assert_close(changed(weight, change), expected, rtol=0, atol=1e-7)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_changed_gives_the_same_bits_however_it_is_cut(dtype, monkeypatch):
    weight, change = torch.randn(64, 33).to(dtype), low_rank(64, 33, 17)
    whole = changed(weight, change)
    monkeypatch.setattr("perdure.deltas.delta._CHUNK_ELEMENTS", 40)
    assert torch.equal(whole, changed(weight, change))
    assert whole.dtype == dtype


def test_changed_refuses_another_shape():
    with pytest.raises(SettingError, match="shape"):
        changed(torch.zeros(5, 9), low_rank())


def test_algebra_is_that_of_the_dense_values():
    first, second = Delta({"a": low_rank(seed=1), "b": low_rank(seed=2)}), Delta({"a": low_rank(seed=3)})
    total = first - second * 2.0
    torch.testing.assert_close(total.changes["a"].value(), first.changes["a"].value() - 2 * second.changes["a"].value())
    assert total.changes["b"].value().equal(first.changes["b"].value())
    assert total.changes["a"].low_rank.rank == 4
    assert not Delta()


def test_mixed_parts_add_up():
    dense = Change(dense=torch.randn(6, 9))
    both = low_rank() + dense
    torch.testing.assert_close(both.value(), low_rank().value() + dense.dense.double())
    weight = torch.randn(6, 9)
    torch.testing.assert_close(changed(weight, both), (weight.double() + both.value()).float(), rtol=0, atol=1e-7)
    assert not both.is_low_rank


def test_norm_of_factors_needs_no_product():
    change = low_rank(50, 40, 5)
    assert change.norm() == pytest.approx(float(change.value().norm()), rel=1e-9)


def test_keys_of_a_sum_stand_side_by_side():
    first, second = torch.randn(5, 3), torch.randn(5, 4)
    total = Delta(keys={"a": first}) + Delta(keys={"a": second, "b": first})
    assert torch.equal(total.keys["a"], torch.cat([first, second], 1))
    assert torch.equal(total.keys["b"], first)


def test_round_trip_and_the_same_bytes(tmp_path):
    delta = Delta({"x.weight": low_rank(), "y": Change(dense=torch.ones(3))}, {"x.weight": torch.randn(9, 2)}, {"n": 1})
    save_delta(delta, tmp_path / "a.safetensors")
    save_delta(delta, tmp_path / "b.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    read = load_delta(tmp_path / "a.safetensors")
    assert read.notes == {"n": 1}
    assert read.changes.keys() == delta.changes.keys()
    assert torch.equal(read.changes["x.weight"].value(), delta.changes["x.weight"].value())
    assert torch.equal(read.keys["x.weight"], delta.keys["x.weight"])


def test_a_damaged_file_is_refused(tmp_path):
    file = tmp_path / "a.safetensors"
    save_delta(Delta({"x": low_rank()}), file)
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(IntegrityError, match="not a readable delta"):
        load_delta(file)


def test_nan_is_refused():
    with pytest.raises(SettingError, match="the change of x holds NaN"):
        Delta({"x": Change(dense=torch.tensor([float("nan")]))}).check_finite()


def test_difference_leaves_equal_tensors_out():
    before = {"a": torch.zeros(2, 2), "b": torch.ones(2)}
    found = difference(before, {"a": torch.zeros(2, 2), "b": torch.tensor([1.0, 3.0])})
    assert list(found.changes) == ["b"]
    assert found.changes["b"].value().tolist() == [0.0, 2.0]
    with pytest.raises(SettingError, match="tensor names"):
        difference(before, {"a": before["a"]})


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_changed_leaves_its_arguments_alone(dtype):
    weight, change = torch.randn(6, 9).to(dtype), low_rank()
    kept, parts = weight.clone(), [part.clone() for part in change.tensors()]
    changed(weight, change)
    assert torch.equal(weight, kept)
    assert all(torch.equal(a, b) for a, b in zip(change.tensors(), parts, strict=True))


@pytest.mark.parametrize("shape", [(5,), (), (3, 4, 5), (0, 3), (5, 0), (7, 11)])
def test_dense_changes_of_any_shape_are_added_in_pieces(shape, monkeypatch):
    monkeypatch.setattr("perdure.deltas.delta._CHUNK_ELEMENTS", 10)
    weight, dense = torch.randn(shape).bfloat16(), torch.randn(shape)
    expected = (weight.double() + dense.double()).bfloat16()
    assert torch.equal(changed(weight, Change(dense=dense)), expected)


def test_rows_of_a_change_change_the_rows():
    weight, change = torch.randn(6, 9).bfloat16(), low_rank() + Change(dense=torch.randn(6, 9))
    whole = changed(weight, change)
    assert torch.equal(
        torch.cat([changed(weight[:4], change.rows(0, 4)), changed(weight[4:], change.rows(4, 6))]), whole
    )
