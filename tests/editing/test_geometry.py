import math

import pytest
import torch

from perdure.editing.geometry import (
    Case,
    angles,
    classify,
    effective_dimension,
    fuse,
    histograms,
    leading_directions,
    negligible,
    noise_margin,
    old_share,
    ranges,
)
from perdure.errors import SettingError

SIDE = 576  # the hidden size of SmolLM2-135M
EACH = 700


def randn(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def false_rate(cosine, dimension):
    """P(|cos| > c) of random directions in d dimensions: Student's t of d − 1 degrees, two-sided, by integration."""
    steps = 20_000
    grid = torch.linspace(math.acos(cosine), math.pi / 2, steps, dtype=torch.float64)
    whole = torch.linspace(0, math.pi / 2, steps, dtype=torch.float64)
    inside = torch.trapezoid(grid.sin() ** (dimension - 2), grid)
    return 1 - float(inside / torch.trapezoid(whole.sin() ** (dimension - 2), whole))


@pytest.mark.parametrize("scale", [1.0, 1e-6, 1e6])
def test_the_same_update_is_at_0_and_the_opposite_at_180(scale):
    update = randn(50, SIDE)
    assert angles(update, scale * update).max() < 1e-6
    assert angles(update, -scale * update).min() > 180 - 1e-6


def test_a_known_angle_keeps_its_digits():
    tilt = torch.tensor([1e-7, 30.0, 90.0, 179.9999999], dtype=torch.float64)
    turned = torch.stack([torch.deg2rad(tilt).cos(), torch.deg2rad(tilt).sin()], 1)
    straight = torch.tensor([[1.0, 0.0]], dtype=torch.float64).expand(4, 2)
    torch.testing.assert_close(angles(straight, turned), tilt, rtol=0, atol=1e-8)
    assert float(angles(torch.zeros(1, 3), torch.ones(1, 3))) == 90.0


@pytest.mark.parametrize("size", [16, 64, 576])
def test_random_updates_lie_at_90_give_or_take_57_over_root_d(size):
    found = angles(randn(20_000, size, seed=1), randn(20_000, size, seed=2))
    assert float(found.mean()) == pytest.approx(90, abs=0.3)
    assert float(found.std()) == pytest.approx(57.3 / math.sqrt(size), rel=0.05)


@pytest.mark.parametrize("shape", [(60, 24), (10, 24)])
def test_all_directions_keep_the_angles(shape):
    old, new = randn(*shape, seed=1), randn(*shape, seed=2)
    basis = leading_directions(old, new, shape[1])
    assert basis.shape == (shape[1], min(shape[1], 2 * shape[0]))
    torch.testing.assert_close(angles(old @ basis, new @ basis), angles(old, new), rtol=0, atol=1e-9)


def test_leading_directions_are_the_best_approximation_by_both_routes():
    """Subspace iteration (576 wide, more than 8 · 32) against the singular vectors of the stacked updates."""
    strength = torch.linspace(3, 0.5, SIDE, dtype=torch.float64) ** 4
    old, new = randn(400, SIDE, seed=1) * strength, 50 * randn(400, SIDE, seed=2) * strength
    stacked = torch.cat([old / old.norm(), new / new.norm()])
    best = torch.linalg.svdvals(stacked)[:16].square().sum()
    basis = leading_directions(old, new, 16)
    torch.testing.assert_close(basis.T @ basis, torch.eye(16, dtype=torch.float64), atol=1e-10, rtol=0)
    assert float((stacked @ basis).square().sum() / best) > 1 - 1e-4
    exact = leading_directions(old[:100], new[:100], 16)
    few = torch.cat([old[:100] / old[:100].norm(), new[:100] / new[:100].norm()])
    assert float((few @ exact).square().sum()) == pytest.approx(float(torch.linalg.svdvals(few)[:16].square().sum()))


def test_what_all_neurons_share_is_not_hidden():
    """The projection goes through the origin: centring would take the shared direction, and the angle with it, away."""
    shared = randn(1, 40, seed=3) * 10
    old, new = shared + randn(200, 40, seed=1), shared + randn(200, 40, seed=2)
    basis = leading_directions(old, new, 4)
    assert angles(old @ basis, new @ basis).max() < 45


def test_effective_dimension_of_even_and_uneven_directions():
    even = [randn(4000, 24, seed=seed) for seed in (1, 2)]
    assert effective_dimension(*even) == pytest.approx(24, rel=0.02)
    one = randn(4000, 1, seed=4) * torch.eye(1, 24, dtype=torch.float64)
    assert effective_dimension(one, one) == pytest.approx(1)
    spread = torch.tensor([4.0, 2, 1, 0.5, 0.25, 0.1]).double()
    uneven = effective_dimension(*(randn(4000, 6, seed=seed) * spread for seed in (1, 2)))
    assert 1.2 < uneven < 3


def test_effective_dimension_looks_at_different_neurons_only():
    """Two equal updates are related neuron by neuron; what is noise is said by the other pairs."""
    update = randn(3000, 16, seed=5)
    assert effective_dimension(update, update) == pytest.approx(16, rel=0.02)


@pytest.mark.parametrize("dimension", [16, 32, 64])
def test_false_alarms_are_as_rare_as_computed(dimension):
    """Even directions: exactly the rate of Student's t, 1.0–1.4 % at width 2.5."""
    old, new = randn(40_000, dimension, seed=1), randn(40_000, dimension, seed=2)
    margin = noise_margin(effective_dimension(old, new), 2.5)
    case = classify(angles(old, new), margin, torch.zeros(40_000, dtype=torch.bool))
    rate = float((case != Case.ORTHOGONAL).double().mean())
    expected = false_rate(math.sin(math.radians(margin)), dimension)
    assert 0.009 < expected < 0.016
    assert rate == pytest.approx(expected, abs=0.0025)


def test_uneven_directions_need_the_effective_dimension():
    """Coordinates with unequal variances: r would promise 1.3 % and give many times that."""
    strength = torch.linspace(0, -2.5, 32).double().exp()
    old, new = randn(40_000, 32, seed=1) * strength, randn(40_000, 32, seed=2) * strength
    found, nobody = angles(old, new), torch.zeros(40_000, dtype=torch.bool)

    def rate(dimension):
        return float((classify(found, noise_margin(dimension, 2.5), nobody) != Case.ORTHOGONAL).double().mean())

    assert rate(32) > 0.05
    assert 0.005 < rate(effective_dimension(old, new)) < 0.02


def test_a_margin_has_bounds():
    assert noise_margin(16, 2.5) == pytest.approx(35.8, abs=0.05)
    assert noise_margin(1, 2.5) == 75
    with pytest.raises(SettingError, match="at least 1"):
        noise_margin(0.5, 2.5)


def planted(seed=0, inner=16, noise=3.0):
    """Updates [3 · EACH, 576] whose signal lies in 16 dimensions under three times as much noise (by norm).

    A third has the same signal in both, a third an independent one, a third the opposite one.
    """
    plane = torch.linalg.qr(randn(SIDE, inner, seed=seed + 10))[0]
    signal, other = (randn(3 * EACH, inner, seed=seed + place) / math.sqrt(inner) for place in (1, 2))
    truth = torch.tensor([Case.ACUTE, Case.ORTHOGONAL, Case.OBTUSE]).repeat_interleave(EACH)
    partner = torch.where((truth == Case.ORTHOGONAL)[:, None], other, signal)
    partner = torch.where((truth == Case.OBTUSE)[:, None], -signal, partner)
    dirt = [randn(3 * EACH, SIDE, seed=seed + place) * (noise / math.sqrt(SIDE)) for place in (3, 4)]
    return signal @ plane.T + dirt[0], partner @ plane.T + dirt[1], truth


def share_right(found, margin, truth):
    case = classify(found, margin, torch.zeros(len(truth), dtype=torch.bool))
    return float((case == truth).double().mean())


def test_planted_cases_are_found_in_few_dimensions_and_lost_in_many():
    old, new, truth = planted()
    raw = share_right(angles(old, new), 5, truth)
    assert 0.60 < raw < 0.80
    basis = leading_directions(old, new, 16)
    found = angles(old @ basis, new @ basis)
    assert share_right(found, 30, truth) >= 0.95
    assert share_right(found, noise_margin(effective_dimension(old @ basis, new @ basis), 2.5), truth) >= 0.95


def test_more_directions_than_signals_only_add_noise():
    """Why 16 is the default: with 32 or 64 the planted cases blur again, though less than in all 576."""
    old, new, truth = planted(seed=100)
    right = []
    for kept in (16, 32, 64):
        basis = leading_directions(old, new, kept)
        first, second = old @ basis, new @ basis
        margin = noise_margin(effective_dimension(first, second), 2.5)
        right.append(share_right(angles(first, second), margin, truth))
    assert right[0] >= 0.95
    assert right[0] > right[1] > right[2]


def test_negligible_updates_are_skipped_whatever_their_angle():
    old, new = torch.ones(4, 3), torch.ones(4, 3)
    old[1] *= 1e-3
    new[2] = 0
    skipped = negligible(old, new, 0.01)
    assert skipped.tolist() == [False, True, True, False]
    case = classify(torch.tensor([0.0, 0.0, 180.0, 180.0]), 30, skipped)
    assert case.tolist() == [Case.ACUTE, Case.SKIPPED, Case.SKIPPED, Case.OBTUSE]
    assert negligible(torch.zeros(2, 3), torch.ones(2, 3), 0.01).all()


def test_each_case_becomes_what_the_paper_says():
    old, new = randn(4, 5, seed=1), randn(4, 5, seed=2)
    case = torch.tensor([Case.ACUTE, Case.ORTHOGONAL, Case.OBTUSE, Case.SKIPPED], dtype=torch.int8)
    fused = fuse(old, new, case, torch.tensor([0.25, 0.5, 0.5, 0.5]), 0.4)
    torch.testing.assert_close(fused[0], 0.25 * old[0] + 0.75 * new[0])
    torch.testing.assert_close(fused[2], new[2] - 0.4 * old[2])
    assert torch.equal(fused[[1, 3]], torch.zeros(2, 5, dtype=torch.float64))


def test_shares_weigh_by_importance_within_each_update():
    share = old_share(torch.tensor([1.0, 3.0, 0.0]), torch.tensor([30.0, 10.0, 0.0]))
    torch.testing.assert_close(share, torch.tensor([0.25, 0.75, 0.5], dtype=torch.float64))


def test_neurons_are_listed_as_ranges():
    assert ranges(torch.tensor([2, 2, 2, 1, 2])) == {"acute": "0-2,4", "orthogonal": "3"}
    assert ranges(torch.tensor([0])) == {"skipped": "0"}


def test_histograms_count_every_neuron_once_under_its_case():
    angle = torch.tensor([0.0, 4.9, 5.0, 90.0, 180.0, 90.0])
    case = torch.tensor([2, 2, 2, 1, 3, 0])
    counted = histograms(angle, case)
    assert sorted(counted) == ["acute", "obtuse", "orthogonal", "skipped"]
    assert counted["acute"][:2] == [2, 1]
    assert (counted["orthogonal"][18], counted["skipped"][18], counted["obtuse"][35]) == (1, 1, 1)
    assert sum(map(sum, counted.values())) == 6
    assert {len(bins) for bins in counted.values()} == {36}
