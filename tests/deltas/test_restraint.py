import math

import pytest
import torch
from pydantic import ValidationError

from perdure.deltas import (
    Change,
    Delta,
    LowRank,
    PruneConfig,
    contract,
    decompose,
    extremes,
    largest_singular_value,
    prune,
    singular_values,
)
from perdure.deltas.restraint import restrained_step
from perdure.deltas.spectrum import compress
from perdure.errors import SettingError

torch.manual_seed(0)
O, I, K = 24, 40, 6
CEILING = 5.0


def with_values(values, rows=O, columns=I, dtype=torch.float32):
    left = torch.linalg.qr(torch.randn(rows, len(values), dtype=torch.float64))[0]
    right = torch.linalg.qr(torch.randn(columns, len(values), dtype=torch.float64))[0]
    return Change(LowRank((left * torch.tensor(values).double()).to(dtype), right.T.to(dtype)))


VALUES = [20.0, 9.0, 6.0, 4.0, 1.0, 0.5]


@pytest.mark.parametrize("form", ["published", "clamped", "scale_free"])
def test_values_become_f_of_s_and_vectors_stay(form):
    change, config = with_values(VALUES, dtype=torch.float64), PruneConfig(form=form)
    restrained = prune(Delta({"w": change}), {"w": CEILING}, config).changes["w"]
    expected = contract(torch.tensor(VALUES).double(), CEILING, form, config.alpha)
    torch.testing.assert_close(
        singular_values(restrained)[:K], expected.sort(descending=True).values, rtol=1e-6, atol=1e-6
    )
    left, _, right = decompose(change)
    diagonal = left.T @ restrained.value() @ right.T
    torch.testing.assert_close(diagonal.diagonal(), expected, rtol=1e-6, atol=1e-6)
    assert (diagonal - diagonal.diagonal().diag()).abs().max() < 1e-5


def test_low_rank_route_equals_the_full_route():
    change = with_values(VALUES)
    dense = Change(dense=change.value().float())
    fast = prune(Delta({"w": change}), {"w": CEILING}).changes["w"].value()
    full = prune(Delta({"w": dense}), {"w": CEILING}).changes["w"].value()
    assert (fast - full).abs().max() < 5e-6


def test_the_published_form_can_raise_a_value_and_the_clamped_one_cannot():
    s = torch.tensor([8.138], dtype=torch.float64)
    assert contract(s, 3.255, "published", 1.2).item() == pytest.approx(8.281, abs=1e-3)
    assert contract(s, 3.255, "clamped", 1.2).item() == pytest.approx(8.138)
    many = torch.rand(1000, dtype=torch.float64) * 50
    assert (contract(many, 3.255, "clamped", 1.2) <= many).all()
    assert (contract(many, 3.255, "scale_free", math.e) <= many + 1e-12).all()


def test_published_form_by_hand():
    # log_1.2(20) − log_1.2(6) + 6 = ln(20/6)/ln 1.2 + 6 = 6.603… + 6
    expected = math.log(20 / 6) / math.log(1.2) + 6
    assert contract(torch.tensor([20.0]).double(), 6.0, "published", 1.2).item() == pytest.approx(expected)


def test_scale_free_has_no_unit():
    s = torch.tensor(VALUES).double()
    one = contract(s, CEILING, "scale_free", 3.0)
    torch.testing.assert_close(contract(100 * s, 100 * CEILING, "scale_free", 3.0), 100 * one)


def test_weyl_bound_holds():
    weight = torch.randn(O, I, dtype=torch.float64)
    top = extremes(weight).largest
    restrained = prune(Delta({"w": with_values([90.0, 40.0, 1.0])}), {"w": top}).changes["w"]
    limit = top + singular_values(restrained)[0]
    assert extremes(weight + restrained.value()).largest <= limit + 1e-9


def test_a_small_update_is_left_bit_for_bit():
    change = with_values([1.0, 0.5])
    assert prune(Delta({"w": change}), {"w": CEILING}).changes["w"] is change


def test_a_value_that_the_published_form_would_raise_is_left_bit_for_bit_by_the_clamped_one():
    change = with_values([8.0, 1.0])  # σ* = 3.255: the published form gives 8.19
    assert prune(Delta({"w": change}), {"w": 3.255}).changes["w"] is change
    assert prune(Delta({"w": change}), {"w": 3.255}, PruneConfig(form="published")).changes["w"] is not change


def test_many_values_below_the_ceiling_are_left_where_their_norm_is_above():
    change = with_values([4.0] * 6)  # ‖·‖_F = 9.8
    assert prune(Delta({"w": change}), {"w": CEILING}).changes["w"] is change
    dense = Change(dense=change.value().float())
    assert prune(Delta({"w": dense}), {"w": CEILING}).changes["w"] is dense


def test_missing_ceiling_and_bad_settings_are_refused():
    with pytest.raises(SettingError, match="no largest singular value"):
        prune(Delta({"w": with_values([9.0])}), {})
    with pytest.raises(ValidationError, match="alpha must be at least e"):
        PruneConfig(form="scale_free", alpha=1.2)
    assert PruneConfig(form="scale_free").alpha == math.e
    with pytest.raises(SettingError, match="must be positive"):
        contract(torch.ones(1), 0.0, "clamped", 1.2)


def test_spectrum_routes_agree():
    weight = torch.randn(O, I, dtype=torch.float64)
    values = torch.linalg.svdvals(weight)
    found = extremes(weight)
    assert found.largest == pytest.approx(float(values[0]), rel=1e-9)
    assert found.smallest == pytest.approx(float(values[-1]), rel=1e-7)
    assert found.condition == pytest.approx(float(values[0] / values[-1]), rel=1e-7)
    assert largest_singular_value(weight) == pytest.approx(float(values[0]), rel=1e-6)
    assert largest_singular_value(torch.zeros(3, 4)) == 0.0


def test_compress_drops_what_is_not_there():
    change = with_values([3.0, 2.0]) + with_values([1.0]) + with_values([1.0]) * 0.0
    small = compress(change)
    assert small.low_rank.rank == 3
    torch.testing.assert_close(small.value(), change.value(), rtol=1e-5, atol=1e-5)


def test_a_step_leads_to_the_restrained_total():
    ceilings = {"w": CEILING, "v": CEILING}
    first = Delta({"w": with_values([9.0, 2.0]), "v": with_values([1.0])})
    second = Delta({"w": with_values([8.0, 1.0]), "v": with_values([2.0])})
    before, after = prune(first, ceilings), prune(first + second, ceilings)
    step = restrained_step(second, before, after)
    torch.testing.assert_close((before + step).changes["w"].value(), after.changes["w"].value(), rtol=1e-5, atol=1e-5)
    assert step.changes["v"] is second.changes["v"]  # nothing to restrain: just what was solved
