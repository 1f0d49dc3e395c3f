import math

import pytest
import torch

from perdure.deltas import LowRank
from perdure.errors import EditError, SettingError
from perdure.tuning.averaging import (
    Shadow,
    average_products,
    isotropic_drift,
    line_search,
    published_share,
    refactored,
    sound_share,
    sound_shares,
)
from perdure.tuning.blending import held_back

CURVATURE = torch.diag(torch.tensor([2.0, 4.0], dtype=torch.float64))
STEP = torch.ones(2, dtype=torch.float64)


def numbers(optimum):
    """g·δ, δᵀHδ, δᵀδ of ½ (θ − optimum)ᵀH(θ − optimum) at θ = (1, 1), from θ_old = 0."""
    gradient = CURVATURE @ (STEP - torch.tensor(optimum, dtype=torch.float64))
    return float(gradient @ STEP), float(STEP @ CURVATURE @ STEP), float(STEP @ STEP)


@pytest.mark.parametrize(
    ("optimum", "strength", "expected"),
    [((1, 1), 1, 0.25), ((0.5, 1), 1, 0.375), ((3, 1), 1, 0.0), ((0.5, 1), 0, 1 / 6), ((0.5, 1), 1e12, 1.0)],
)
def test_the_worked_example(optimum, strength, expected):
    assert sound_share(*numbers(optimum), strength) == pytest.approx(expected, abs=1e-10)


def test_the_clipped_example_is_a_quarter_below_zero_before():
    slope, curvature, drift = numbers((3, 1))
    assert (slope + drift) / (curvature + drift) == -0.25


def test_nothing_moved_keeps_the_trained_weights_and_no_least_point_gives_none():
    assert sound_share(0.0, 0.0, 0.0, 1.0) == 0.0
    assert sound_share(1.0, -3.0, 2.0, 1.0) is None
    assert sound_share(1.0, 1e-20, 0.0, 0.0) is None
    assert sound_share(1e-30, 4e-30, 0.0, 0.0) == pytest.approx(0.25)


def test_bad_numbers_are_refused():
    with pytest.raises(SettingError, match="strength"):
        sound_share(1.0, 1.0, 1.0, -1.0)
    with pytest.raises(EditError, match="not finite"):
        sound_share(math.nan, 1.0, 1.0, 1.0)
    with pytest.raises(SettingError, match="square"):
        sound_shares(torch.ones(2), torch.eye(3), torch.eye(3), 1.0)


def quadratic(seed, size=6):
    generator = torch.Generator().manual_seed(seed)
    draw = torch.randn(4, size, size, generator=generator, dtype=torch.float64)
    hessian, metric = draw[0] @ draw[0].T + 0.1 * torch.eye(size), draw[1] @ draw[1].T + 0.1 * torch.eye(size)
    return hessian, metric, draw[2, 0], draw[3, 0], float(torch.rand(1, generator=generator)) * 3


def objective(seed, shares, groups):
    """New loss + stability at old + Σ (1 − β_k) δ_k, up to a constant, straight from its definition."""
    hessian, metric, step, gradient, strength = quadratic(seed)
    back = shares @ (groups * step)
    rest = step - back
    new = -back @ gradient + (back @ hessian * back).sum(-1) / 2
    return new + strength / 2 * (rest @ metric * rest).sum(-1)


def test_two_hundred_random_quadratics_match_brute_force():
    whole = torch.ones(1, 6, dtype=torch.float64)
    for seed in range(200):
        hessian, metric, step, gradient, strength = quadratic(seed)
        share = sound_share(float(gradient @ step), float(step @ hessian @ step), float(step @ metric @ step), strength)
        low, high = 0.0, 1.0
        for _ in range(4):
            grid = torch.linspace(low, high, 401, dtype=torch.float64)
            best = float(grid[objective(seed, grid[:, None], whole).argmin()])
            low, high = max(0.0, best - (high - low) / 200), min(1.0, best + (high - low) / 200)
        assert share == pytest.approx(best, abs=1e-6), seed


def grouped(seed):
    hessian, metric, step, gradient, strength = quadratic(seed)
    groups = torch.block_diag(*[torch.ones(1, 2, dtype=torch.float64)] * 3)
    parts = groups * step
    return parts @ gradient, parts @ hessian @ parts.T, parts @ metric @ parts.T, strength, groups


def test_grouped_shares_are_the_least_of_the_box_on_two_hundred_quadratics():
    grid = torch.cartesian_prod(*[torch.linspace(0, 1, 21, dtype=torch.float64)] * 3)
    for seed in range(200):
        *given, groups = grouped(seed)
        shares = sound_shares(*given)
        slope, curvature, drift, strength = given
        slant = (curvature + strength * drift) @ shares - slope - strength * drift.sum(1)
        size = float((curvature + strength * drift).abs().max())
        assert (slant[shares == 0] >= -1e-9 * size).all(), seed
        assert (slant[shares == 1] <= 1e-9 * size).all(), seed
        inside = (shares > 0) & (shares < 1)
        assert torch.allclose(slant[inside], torch.zeros(int(inside.sum())).double(), atol=1e-9 * size), seed
        ours = objective(seed, shares[None], groups)
        assert (ours <= objective(seed, grid, groups) + 1e-9).all(), seed


@pytest.mark.parametrize("size", [32, 200])
def test_many_groups_of_very_different_sizes_are_solved_exactly(size):
    generator = torch.Generator().manual_seed(size)
    draw = torch.randn(size, size + 1, generator=generator, dtype=torch.float64)
    units = torch.logspace(-3, 3, size, dtype=torch.float64)
    total = draw[:, :size] @ draw[:, :size].T / size * torch.outer(units, units)
    slope = 1.5 * total.diagonal() * draw[:, size]
    shares = sound_shares(slope, total, torch.zeros_like(total), 0.0)
    slant = (total @ shares - slope) / total.diagonal().sqrt()
    size_of_slant = float((slope / total.diagonal().sqrt()).abs().max())
    assert 5 < int((shares == 0).sum()) < size - 5
    assert 5 < int((shares == 1).sum()) < size - 5
    assert (slant[shares == 0] >= -1e-8 * size_of_slant).all()
    assert (slant[shares == 1] <= 1e-8 * size_of_slant).all()
    assert (slant[(shares > 0) & (shares < 1)].abs() <= 1e-8 * size_of_slant).all()


def test_one_group_is_the_single_share_and_more_groups_are_never_worse():
    for seed in range(50):
        slope, curvature, drift, strength, groups = grouped(seed)
        single = sound_share(float(slope.sum()), float(curvature.sum()), float(drift.sum()), strength)
        of_one = sound_shares(slope.sum()[None], curvature.sum()[None, None], drift.sum()[None, None], strength)
        assert of_one.item() == pytest.approx(single, abs=1e-12)
        shares = sound_shares(slope, curvature, drift, strength)
        same = torch.full((1, 3), single, dtype=torch.float64)
        assert objective(seed, shares[None], groups) <= objective(seed, same, groups) + 1e-10


def test_groups_that_did_not_move_stay_and_flat_directions_take_least():
    slope, curvature, drift = torch.zeros(3), torch.zeros(3, 3), torch.zeros(3, 3)
    assert torch.equal(sound_shares(slope, curvature, drift, 1.0), torch.zeros(3, dtype=torch.float64))
    slope[0], curvature[0, 0], drift[0, 0] = 1.0, 2.0, 1.0
    assert torch.allclose(sound_shares(slope, curvature, drift, 1.0), torch.tensor([2 / 3, 0, 0], dtype=torch.float64))
    flat = sound_shares(torch.ones(2), torch.ones(2, 2), torch.zeros(2, 2), 0.0)
    assert torch.allclose(flat, torch.full((2,), 0.5, dtype=torch.float64), atol=1e-6)


@pytest.mark.parametrize(
    ("slope", "curvature"),
    [
        ([1.0, 0.0], [[1.0, 1.0], [1.0, 1.0]]),  # flat where the slope is not
        ([1.0, 1.0], [[1.0, 2.0], [2.0, 1.0]]),  # bends down
        ([1.0, 1.0], [[1.0, 0.0], [0.0, -1.0]]),
        ([1.0, 1.0], [[1.0, 0.0], [0.0, 0.0]]),
    ],
)
def test_no_least_point_in_the_box_gives_none(slope, curvature):
    assert sound_shares(torch.tensor(slope), torch.tensor(curvature), torch.zeros(2, 2), 0.0) is None


def isotropic_shares(hessian, step, gradient, groups, strength=1.0):
    parts = groups * step
    curvature = parts @ hessian @ parts.T
    return sound_shares(parts @ gradient, curvature, isotropic_drift(curvature, (parts**2).sum(1)), strength)


@pytest.mark.parametrize("seed", range(5))
def test_shares_do_not_change_with_the_units_or_with_a_tensor_that_is_there_twice(seed):
    hessian, _, step, gradient, _ = quadratic(seed)
    groups = torch.block_diag(*[torch.ones(1, 2, dtype=torch.float64)] * 3)
    plain = isotropic_shares(hessian, step, gradient, groups)
    assert ((plain > 0) & (plain < 1)).any()
    loss_in_other_units = isotropic_shares(10 * hessian, step, 10 * gradient, groups)
    weights_in_other_units = isotropic_shares(hessian / 49, 7 * step, gradient / 7, groups)
    twice = isotropic_shares(
        torch.block_diag(hessian, hessian), step.repeat(2), gradient.repeat(2), groups.repeat(1, 2)
    )
    for other in (loss_in_other_units, weights_in_other_units, twice):
        assert torch.allclose(other, plain, atol=1e-9)


def test_isotropic_drift_at_the_optimum_gives_strength_by_one_plus_strength():
    drift = isotropic_drift(torch.tensor([[6.0]]), torch.tensor([2.0]))
    assert sound_share(0.0, 6.0, drift.item(), 3.0) == pytest.approx(0.75)
    assert isotropic_drift(torch.zeros(1, 1), torch.zeros(1)).item() == 0.0


def test_line_search_finds_the_sound_share_of_a_quadratic():
    slope, curvature, drift = numbers((0.5, 1))
    found = line_search(lambda b: -b * slope + b * b / 2 * curvature, drift=drift, strength=1.0, steps=30)
    assert found == pytest.approx(0.375, abs=1e-6)


def test_line_search_where_the_loss_bends_down():
    assert line_search(lambda b: -((b - 0.4) ** 2)) == 1.0
    assert line_search(lambda b: -((b - 0.6) ** 2)) == 0.0
    assert line_search(lambda _: 1.0) == 0.0
    asked = []
    line_search(lambda b: asked.append(b) or b**4, points=3, steps=4)
    assert len(asked) <= 8
    assert line_search(lambda b: math.nan if b > 0.9 else (b - 0.7) ** 2, steps=30) == pytest.approx(0.7, abs=1e-4)


def test_line_search_refuses_a_loss_that_is_finite_nowhere():
    with pytest.raises(EditError, match="finite nowhere"):
        line_search(lambda _: math.nan)
    with pytest.raises(SettingError):
        line_search(lambda b: b, points=1)


def published(scale=1.0, unit=1.0, copies=1):
    hessian = torch.tensor([40.0, 80.0], dtype=torch.float64)
    optimum, theta, before, old = (
        torch.tensor(point, dtype=torch.float64) for point in ([1, 1], [0.9, 0.9], [0.85, 0.8], [0, 0])
    )
    gradient, earlier = (scale / unit * hessian * (point - optimum) for point in (theta, before))
    return published_share(*(part.repeat(copies) for part in (gradient, earlier, unit * theta, unit * before, old)))


def test_the_published_share_by_hand_and_its_dependence_on_units():
    # gradient (−4, −8), before (−6, −16): ‖g‖ = 12, ‖g − g′‖ = 10, ‖θ − θ′‖ = .15, ‖θ − θ*‖ = 1.8
    assert published() == pytest.approx(13 * 0.15 / (10 * 1.8))
    assert published(scale=10) == pytest.approx(published() * (121 / 13) / 10)
    assert published(unit=10) != pytest.approx(published(), rel=0.05)
    assert published(copies=2) != pytest.approx(published(), rel=0.02)


def test_the_published_share_outside_its_range_is_ninety_nine_hundredths():
    still = torch.ones(3)
    assert published_share(still, still, still, still, still) == 0.99
    assert published_share(still, 1.001 * still, still, 2 * still, 0.9 * still) == 0.99


def test_a_float32_shadow_of_bfloat16_does_not_stall():
    shadow = Shadow({"w": torch.tensor([0.9])})
    target = torch.tensor([1.0], dtype=torch.bfloat16)
    stalled = torch.tensor([0.9], dtype=torch.bfloat16)
    for _ in range(500):
        shadow.update({"w": target}, 0.99)
        stalled.lerp_(target, 0.01)
    assert shadow.state()["w"].item() == pytest.approx(0.9993, abs=5e-5)
    assert stalled.item() < 0.95


def test_a_resumed_shadow_has_the_same_bits():
    generator = torch.Generator().manual_seed(0)
    steps = [{"a": torch.randn(5, generator=generator), "b": torch.randn(2, 3, generator=generator)} for _ in range(9)]
    whole = Shadow(steps[0])
    for step in steps[1:]:
        whole.update(step, 0.9)
    first = Shadow(steps[0])
    for step in steps[1:4]:
        first.update(step, 0.9)
    state = first.state()
    first.update(steps[5], 0.1)  # must not reach into the state
    second = Shadow.resumed(state)
    for step in steps[4:]:
        second.update(step, 0.9)
    assert all(torch.equal(whole.state()[name], second.state()[name]) for name in ("a", "b"))


def test_a_shadow_refuses_other_tensors():
    shadow = Shadow({"w": torch.zeros(2)})
    for tensors, share in (({"v": torch.zeros(2)}, 0.5), ({"w": torch.zeros(3)}, 0.5), ({"w": torch.zeros(2)}, 2.0)):
        with pytest.raises(SettingError):
            shadow.update(tensors, share)


def factors(seed, rank=3):
    generator = torch.Generator().manual_seed(seed)
    return LowRank(torch.randn(8, rank, generator=generator), torch.randn(rank, 7, generator=generator))


def test_products_are_averaged_not_factors():
    old, new = factors(0), factors(1)
    wanted = 0.3 * old.product() + 0.7 * new.product()
    found = average_products(old, new, 0.3, 6)
    assert torch.allclose(found.change.product(), wanted, atol=1e-5)
    assert found.error == 0.0
    flipped = LowRank(-new.left, -new.right)
    again = average_products(old, flipped, 0.3, 6)
    assert torch.allclose(again.change.product(), wanted, atol=1e-5)
    naive = (0.3 * old.left + 0.7 * new.left) @ (0.3 * old.right + 0.7 * new.right)
    assert not torch.allclose(naive.double(), wanted, atol=1e-1)


def test_what_is_lost_by_a_lower_rank_is_told():
    old, new = factors(0), factors(1)
    wanted = 0.5 * old.product() + 0.5 * new.product()
    found = average_products(old, new, 0.5, 2)
    values = torch.linalg.svdvals(wanted)
    assert found.change.rank == 2
    assert found.error == pytest.approx(float(values[2:].norm() / values.norm()), rel=1e-5)
    assert float((found.change.product() - wanted).norm() / wanted.norm()) == pytest.approx(found.error, rel=1e-4)


def test_a_change_of_nothing_stays_nothing():
    found = refactored(LowRank(torch.zeros(4, 2), torch.randn(2, 3)), 1)
    assert found.error == 0.0
    assert not found.change.product().any()
    with pytest.raises(SettingError, match="rank"):
        refactored(factors(0), 0)
    with pytest.raises(SettingError, match="share"):
        average_products(factors(0), factors(1), 1.2, 3)


class TwoTasks:
    """Two quadratic losses with noisy gradients; the second is trained from near the optimum of the first."""

    def __init__(self, seed, size=20, steps=300, rate=0.02, noise=1.0):
        self.generator = torch.Generator().manual_seed(seed)
        draw = torch.randn(2, size, size, generator=self.generator, dtype=torch.float64)
        self.hessians = [matrix @ matrix.T / size for matrix in draw]
        self.optima = list(torch.randn(2, size, generator=self.generator, dtype=torch.float64) * 1.5)
        self.noise, self.rate = noise, rate
        self.old = self.train(self.optima[0].clone(), 0, 50)[-1]
        self.path = [self.old, *self.train(self.old, 1, steps)]

    def gradient(self, theta, task):
        noise = torch.randn(len(theta), generator=self.generator, dtype=torch.float64)
        return self.hessians[task] @ (theta - self.optima[task]) + self.noise * noise

    def train(self, theta, task, steps):
        path = []
        for _ in range(steps):
            theta = theta - self.rate * self.gradient(theta, task)
            path.append(theta)
        return path

    def loss(self, theta):
        pairs = zip(self.hessians, self.optima, strict=True)
        return sum(float((theta - optimum) @ hessian @ (theta - optimum)) / 2 for hessian, optimum in pairs)

    def joint(self):
        hessian = sum(self.hessians)
        right = sum(matrix @ optimum for matrix, optimum in zip(self.hessians, self.optima, strict=True))
        return self.loss(torch.linalg.solve(hessian, right))

    def averaged(self, share=None):
        """The running average along the path, by a constant share or by the published one."""
        average, gradients = self.path[0], [self.gradient(theta, 1) for theta in self.path]
        for step in range(1, len(self.path)):
            now, before = self.path[step], self.path[step - 1]
            beta = share or published_share(gradients[step], gradients[step - 1], now, before, average)
            average = beta * average + (1 - beta) * now
        return self.loss(average)

    def sound(self, metric=None):
        step = self.path[-1] - self.old
        curvature = float(step @ self.hessians[1] @ step)
        drift = curvature if metric is None else float(step**2 @ metric)
        share = sound_share(float(self.gradient(self.path[-1], 1) @ step), curvature, drift, 1.0)
        return self.loss(share * self.old + (1 - share) * self.path[-1])


def test_two_noisy_tasks_come_out_in_the_expected_order():
    runs = [TwoTasks(seed) for seed in range(20)]

    def mean(values):
        return sum(values) / len(runs)

    joint, plain = mean(run.joint() for run in runs), mean(run.loss(run.path[-1]) for run in runs)
    constant, published_form = mean(run.averaged(0.99) for run in runs), mean(run.averaged() for run in runs)
    isotropic = mean(run.sound() for run in runs)
    fisher = mean(run.sound(run.hessians[0].diagonal()) for run in runs)
    assert plain > constant > isotropic > fisher > joint
    assert published_form > constant


def test_shares_are_held_back_where_the_loss_would_rise_too_far():
    assert held_back(lambda part: part, 1.0) == 1.0
    assert held_back(lambda part: part, 0.5, steps=6) == pytest.approx(0.5, abs=1 / 64)
    assert held_back(lambda part: part**2, 0.25, steps=8) == pytest.approx(0.5, abs=1 / 256)
    assert held_back(lambda part: 10 * part, 0.0, steps=4) == 0.0
