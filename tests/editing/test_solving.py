import pytest
import torch

from perdure.editing.solving import memit_update, protect, rome_update, unlike
from perdure.editing.statistics import SecondMoment
from perdure.errors import EditError

torch.manual_seed(0)
O, I, N, M = 5, 12, 3, 4


def random_moment(size=I, tokens=200):
    keys = torch.randn(size, tokens, dtype=torch.float64)
    return SecondMoment(keys @ keys.T / tokens, tokens)


def rand(*shape):
    return torch.randn(*shape, dtype=torch.float64)


@pytest.fixture
def rome_case():
    moment, weight, key, value = random_moment(), rand(O, I), rand(I), rand(O)
    direction = torch.linalg.solve(moment.matrix, key)
    left, right = rome_update(weight, key, value, direction)
    return moment, weight, key, value, left @ right


def test_rome_sets_the_key_to_the_value(rome_case):
    _, weight, key, value, change = rome_case
    assert torch.linalg.vector_norm((weight + change) @ key - value) < 1e-12
    assert torch.linalg.matrix_rank(change) == 1


def test_rome_has_the_least_disturbance(rome_case):
    moment, weight, key, value, change = rome_case
    cost = torch.trace(change @ moment.matrix @ change.T)
    gap = value - weight @ key
    expected = gap @ gap / (key @ torch.linalg.solve(moment.matrix, key))
    assert float(cost) == pytest.approx(float(expected), rel=1e-12)
    other = rand(O, I)
    other -= torch.outer(other @ key, key) / (key @ key)  # Z k = 0
    moved = change + 0.1 * other
    assert torch.trace(moved @ moment.matrix @ moved.T) > cost


def test_rome_does_not_depend_on_the_scale_of_the_moment(rome_case):
    moment, weight, key, value, change = rome_case
    left, right = rome_update(weight, key, value, torch.linalg.solve(7 * moment.matrix, key))
    torch.testing.assert_close(left @ right, change, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("earlier", [1, I])
def test_what_cannot_be_factored_is_said(earlier):
    with pytest.raises(EditError, match="not positive definite"):
        protect(random_moment(), 2.0, torch.full((I, earlier), float("nan"), dtype=torch.float64))


def test_earlier_keys_that_come_again_are_not_protected():
    moment, keys = random_moment(), rand(I, 2)
    other, near = rand(I, 1), keys[:, :1] + 1e-3 * rand(I, 1)
    assert torch.equal(unlike(torch.cat([-2 * near, other, keys], 1), keys, moment.whiten), other)
    assert unlike(None, keys, moment.whiten) is None
    assert unlike(other[:, :0], keys, moment.whiten).shape == (I, 0)


def test_keys_are_white_where_they_spread_as_text_does():
    moment = random_moment()
    white = moment.whiten(torch.linalg.cholesky(moment.ridged))
    torch.testing.assert_close(white, torch.eye(I, dtype=torch.float64), rtol=1e-9, atol=1e-9)


def test_rome_refuses_a_direction_that_cannot_be():
    with pytest.raises(EditError, match="must be positive"):
        rome_update(rand(O, I), torch.ones(I).double(), rand(O), -torch.ones(I).double())


def solved(residual, keys, weight, moment, previous=None):
    left, right = memit_update(residual, keys, protect(moment, weight, previous))
    return left @ right


@pytest.mark.parametrize("weight", [0.01, 1.0, 50.0])
@pytest.mark.parametrize("columns", [0, 2, M, I])
def test_memit_equals_the_direct_solve(weight, columns):
    moment, keys, residual, previous = random_moment(), rand(I, N), rand(O, N), rand(I, columns)
    ridge = 1e-5 * moment.matrix.diagonal().mean() * torch.eye(I).double()
    bracket = weight * (moment.matrix + ridge) + previous @ previous.T + keys @ keys.T
    direct = residual @ keys.T @ torch.linalg.inv(bracket)
    mine = solved(residual, keys, weight, moment, previous)
    assert torch.linalg.norm(mine - direct) / torch.linalg.norm(direct) < 1e-9


def test_memit_without_protection_interpolates():
    moment, keys, residual = random_moment(), rand(I, N), rand(O, N)
    change = solved(residual, keys, 1e-10, moment)
    torch.testing.assert_close(change @ keys, residual, rtol=1e-6, atol=1e-8)


def test_memit_is_linear_in_the_residual_and_blind_to_the_order_of_facts():
    moment, keys, residual = random_moment(), rand(I, N), rand(O, N)
    change = solved(residual, keys, 5.0, moment)
    torch.testing.assert_close(solved(3 * residual, keys, 5.0, moment), 3 * change)
    order = [2, 0, 1]
    torch.testing.assert_close(solved(residual[:, order], keys[:, order], 5.0, moment), change)


def test_previous_keys_keep_their_outputs():
    moment, keys, residual, previous = random_moment(), rand(I, N), rand(O, N), 30 * rand(I, 2)
    free = solved(residual, keys, 1.0, moment) @ previous
    kept = solved(residual, keys, 1.0, moment, previous) @ previous
    assert kept.norm() < 0.05 * free.norm()


def test_a_moment_without_text_says_so():
    with pytest.raises(EditError, match="more text"):
        _ = SecondMoment(torch.full((3, 3), float("nan")).double(), 1).factor
