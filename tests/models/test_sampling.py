"""The next token, chosen or drawn."""

import pytest
import torch

from perdure.models.sampling import drawn, most_probable

# Probabilities 0.1, 0.4, 0.3, 0.2; in falling order 1, 2, 3, 0 with cumulative 0.4, 0.7, 0.9, 1.0.
LOGITS = torch.tensor([[0.1, 0.4, 0.3, 0.2]], dtype=torch.float64).log()


def draw(u, **settings):
    return drawn(LOGITS, torch.tensor([u], dtype=torch.float64), **{"temperature": 1.0} | settings).item()


def test_the_most_probable_token():
    assert most_probable(torch.tensor([[0.0, 2.0, 2.0], [3.0, 0.0, 1.0]])).tolist() == [1, 0]


@pytest.mark.parametrize(("u", "token"), [(0.0, 1), (0.39, 1), (0.41, 2), (0.69, 2), (0.71, 3), (0.89, 3), (0.91, 0)])
def test_a_token_is_drawn_by_inversion(u, token):
    assert draw(u) == token


@pytest.mark.parametrize(("u", "token"), [(0.0, 1), (0.56, 1), (0.58, 2), (0.999, 2)])
def test_the_nucleus_is_the_smallest_set_that_holds_its_share(u, token):
    assert draw(u, top_p=0.7 - 1e-9) == token  # 0.4 + 0.3 hold it; 0.4 / 0.7 = 0.571…


def test_one_token_is_always_left():
    assert {draw(u, top_p=1e-9) for u in (0.0, 0.5, 0.999)} == {1}


def test_temperature_sharpens_and_flattens():
    assert draw(0.999, temperature=0.01) == 1
    flat = [draw(u, temperature=1e6) for u in (0.2, 0.45, 0.7, 0.95)]
    assert flat == [1, 2, 3, 0]  # about a quarter each


def test_rows_are_drawn_apart_and_frequencies_are_the_probabilities():
    n = 20_000
    uniform_B = torch.rand(n, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    ids_B = drawn(LOGITS.expand(n, 4), uniform_B, temperature=1.0)
    found_V = torch.bincount(ids_B, minlength=4) / n
    assert torch.allclose(found_V.double(), LOGITS[0].exp(), atol=0.012)
