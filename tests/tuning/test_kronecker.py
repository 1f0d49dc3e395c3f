"""Kronecker-factored Fisher information, against matrices that are formed in full."""

import pytest
import torch

from perdure.errors import SettingError
from perdure.tuning.kronecker import (
    FactorSketch,
    Spectrum,
    as_state,
    cost_of_factors,
    cost_of_matrix,
    from_state,
    joined,
    spectrum_of,
    summed,
)
from perdure.tuning.reading import evenly

O, I, RANK = 9, 12, 3


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def sketched(kept, rows=5, seed=0):
    """A sketch of rows of four tokens, and their gradients in full."""
    inputs, gradients = drawn(rows, 4, I, seed=seed), drawn(rows, 4, O, seed=seed + 1)
    sketch = FactorSketch(O, I, kept)
    sketch.add(inputs[:2], gradients[:2])
    sketch.add(inputs[2:], gradients[2:])
    return sketch, torch.einsum("bto,bti->boi", gradients, inputs)


def spectra(tasks, seed=0):
    return [
        Spectrum(
            torch.stack([torch.linalg.qr(drawn(size, RANK, seed=seed + task))[0] for task in range(tasks)]),
            drawn(tasks, RANK, seed=seed + 10).abs() + 1,
            drawn(tasks, seed=seed + 20).abs(),
        )
        for seed, size in ((seed, O), (seed + 100, I))
    ]


def test_both_factors_are_the_partial_traces_of_each_rows_gradient():
    sketch, whole_BOI = sketched(I)
    outer, inner = (each.whole()[0] for each in sketch.spectra(3))
    left, right = (whole_BOI @ whole_BOI.mT).sum(0), (whole_BOI.mT @ whole_BOI).sum(0)
    torch.testing.assert_close(inner, right, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(outer, left / (3 * left.trace()), rtol=1e-4, atol=1e-6)


def test_of_rows_with_like_gradients_the_information_is_exact():
    inputs, gradients = drawn(1, 1, I).expand(6, 1, I), drawn(1, 1, O, seed=1).expand(6, 1, O)
    sketch = FactorSketch(O, I, 2)
    sketch.add(inputs, gradients)
    delta = drawn(O, I, seed=2)
    exact = 6 * (gradients[0, 0] @ delta @ inputs[0, 0]) ** 2 / 6
    torch.testing.assert_close(cost_of_matrix(delta, *sketch.spectra(6)), exact, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kept", [1, 3, 6])
def test_what_is_not_kept_is_spread_evenly_so_the_trace_stays(kept):
    sketch, whole_BOI = sketched(kept)
    outer, inner = sketch.spectra(1)
    assert inner.values_SK.shape == (1, kept)
    assert float(inner.whole()[0].trace()) == pytest.approx(float(whole_BOI.square().sum()), rel=1e-4)
    assert float(outer.whole()[0].trace()) == pytest.approx(1, rel=1e-4)


def test_a_matrix_of_low_rank_is_found_whole_by_the_sketch():
    factor = drawn(40, 3)
    whole = factor @ factor.T
    probe = torch.linalg.qr(drawn(40, 8, seed=1))[0]
    found = spectrum_of(whole @ probe, probe, float(whole.trace()), 4)
    torch.testing.assert_close(found.whole()[0], whole, atol=2e-3, rtol=1e-3)
    torch.testing.assert_close(found.values_SK[0, :3], torch.linalg.eigvalsh(whole).flip(0)[:3], rtol=1e-4, atol=1e-3)


def test_rows_without_gradients_cost_nothing():
    sketch = FactorSketch(O, I, RANK)
    sketch.add(drawn(2, 4, I), torch.zeros(2, 4, O))
    assert float(cost_of_matrix(drawn(O, I), *sketch.spectra(2))) == 0


def test_the_cost_of_a_change_is_its_quadratic_form_by_factors_and_by_the_matrix():
    outer, inner = spectra(tasks=2)
    left, right = drawn(O, 2, seed=5).requires_grad_(), drawn(2, I, seed=6).requires_grad_()
    delta = left @ right
    expected = sum(
        (delta * (a @ delta @ b)).sum() for a, b in zip(outer.whole(), inner.whole(), strict=True)
    )  # fmt: skip
    for found in (cost_of_factors(left, right, outer, inner), cost_of_matrix(delta, outer, inner)):
        torch.testing.assert_close(found, expected)
        (gradient,) = torch.autograd.grad(found, left, retain_graph=True)
        torch.testing.assert_close(gradient, torch.autograd.grad(expected, left, retain_graph=True)[0])


def test_tasks_of_different_rank_add_up():
    (outer, inner), (more_outer, more_inner) = spectra(1), spectra(2, seed=50)
    short = Spectrum(more_outer.vectors_SNK[..., :1], more_outer.values_SK[:, :1], more_outer.rest_S)
    delta = drawn(O, I)
    together = cost_of_matrix(delta, joined(outer, short), joined(inner, more_inner))
    apart = cost_of_matrix(delta, outer, inner) + cost_of_matrix(delta, short, more_inner)
    torch.testing.assert_close(together, apart)


def test_states_are_read_back_and_summed_by_name():
    first, second = {"a": tuple(spectra(1))}, {"a": tuple(spectra(1, seed=7)), "b": tuple(spectra(1, seed=9))}
    found = from_state(as_state(summed(first, second)))
    assert set(found) == {"a", "b"}
    assert found["a"][0].values_SK.shape == (2, RANK)
    torch.testing.assert_close(found["a"][1].whole()[1], second["a"][1].whole()[0])
    torch.testing.assert_close(found["b"][0].whole(), second["b"][0].whole())
    with pytest.raises(SettingError, match="not Kronecker-factored"):
        from_state({"outer.rest.a": torch.zeros(1)})


def test_numbers_are_evenly_spaced_and_never_more_than_asked():
    assert evenly(range(10), 3) == [0, 3, 6]
    assert evenly([4, 5], 9) == [4, 5]
    assert evenly([], 3) == []
