import json
import math

import pytest
import torch

from perdure.deltas import Change, Delta, LowRank
from perdure.errors import SettingError
from perdure.measuring import measure_matrices
from perdure.measuring.spectrum import layer_of

NAME = "model.layers.3.mlp.down_proj.weight"


def _diagonal(*values):
    return torch.diag(torch.tensor(values))


def _bump(size, at, value):
    unit = torch.zeros(size, 1)
    unit[at] = 1.0
    return Change(LowRank(unit * value, unit.T.clone()))


def test_a_matrix_by_hand():
    base = {NAME: _diagonal(4.0, 2.0, 1.0)}
    (found,) = measure_matrices(base, Delta({NAME: _bump(3, 0, 4.0)}), Delta({NAME: _bump(3, 0, 6.0)}))
    assert (found.name, found.layer, found.shape, found.rank) == (NAME, 3, (3, 3), 1)
    close = {
        "norm": 4.0,
        "relative_norm": 4 / math.sqrt(21),
        "sigma_max_base": 4.0,
        "sigma_max_delta": 4.0,
        "sigma_max_solved": 6.0,
        "condition_before": 4.0,
        "condition_after": 8.0,
    }
    assert {name: round(getattr(found, name), 6) for name in close} == {n: round(v, 6) for n, v in close.items()}
    assert found.singular_values == pytest.approx((4.0,)) and found.singular_values_solved == pytest.approx((6.0,))


def test_the_base_is_decomposed_once():
    base = {NAME: torch.randn(4, 6, generator=torch.Generator().manual_seed(0))}
    delta, kept = Delta({NAME: _bump_wide()}), {}
    first = measure_matrices(base, delta, delta, kept.get, kept.__setitem__)
    assert len(kept) == 1
    (digest,) = kept
    kept[digest] = json.loads(json.dumps(kept[digest]))
    assert measure_matrices(base, delta, delta, kept.get, kept.__setitem__) == first
    kept[digest] = [9.0, 3.0]
    assert measure_matrices(base, delta, delta, kept.get)[0].condition_before == 3.0


def _bump_wide():
    return Change(LowRank(torch.ones(4, 1), torch.ones(1, 6)))


def test_of_many_dense_changes_the_largest_are_measured():
    base = {f"layers.{place}.w": torch.eye(3) for place in range(5)} | {"norm": torch.ones(3)}
    changes = {f"layers.{place}.w": Change(dense=torch.eye(3) * (place + 1)) for place in range(4)}
    changes |= {"layers.4.w": _bump(3, 0, 0.001), "norm": Change(dense=torch.ones(3))}
    found = measure_matrices(base, Delta(changes), Delta(), dense_limit=2)
    assert [matrix.name for matrix in found] == ["layers.2.w", "layers.3.w", "layers.4.w"]
    assert [matrix.rank for matrix in found] == [None, None, 1]
    assert found[0].singular_values_solved == found[0].singular_values


def test_a_singular_matrix_has_a_number_that_json_can_say():
    base = {NAME: torch.zeros(3, 3)}
    (found,) = measure_matrices(base, Delta({NAME: _bump(3, 0, 1.0)}), Delta())
    assert math.isfinite(found.condition_before) and found.condition_before > 1e300
    assert type(found).model_validate_json(found.model_dump_json()) == found


def test_a_change_of_another_model_is_refused():
    with pytest.raises(SettingError, match="another model"):
        measure_matrices({}, Delta({NAME: _bump(3, 0, 1.0)}), Delta())


@pytest.mark.parametrize(
    ("name", "layer"), [(NAME, 3), ("transformer.h.11.mlp.c_proj.weight", 11), ("lm_head.weight", None), ("w2.x", None)]
)
def test_the_layer_stands_in_the_name(name, layer):
    assert layer_of(name) == layer
