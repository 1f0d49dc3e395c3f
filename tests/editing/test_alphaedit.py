import pytest
import torch
from pydantic import ValidationError

from perdure.content import cache_folder
from perdure.editing import AlphaEditConfig, Moments, Surroundings, alphaedit, applied
from perdure.editing.solving import alphaedit_update, null_space
from perdure.editing.statistics import Eigenbasis, SecondMoment, second_moments
from perdure.errors import EditError, SettingError
from perdure.models import layout_of
from perdure.requests import Fact

O, I, N, M = 5, 14, 3, 4
L2 = 0.7
TEXTS = ["The twin city of Lyon is Beirut, and the Nile is in Egypt. " * 3, "Ada speaks Danish to her friends. " * 5]
FACTS = (
    Fact(subject="Lyon", prompt="The twin city of Lyon is", target_new="Manila"),
    Fact(subject="Ada", prompt="Ada speaks", target_new="Dutch"),
)
QUICK = {"values": {"steps": 3}, "contexts": 0}


@pytest.fixture
def rand():
    draw = torch.Generator().manual_seed(0)
    return lambda *shape: torch.randn(*shape, dtype=torch.float64, generator=draw)


def with_values(*values):
    """An eigenbasis with these eigenvalues along the coordinate axes."""
    return Eigenbasis(torch.tensor(values, dtype=torch.float64), torch.eye(len(values), dtype=torch.float64))


@pytest.fixture
def basis(rand):
    """The eigenbasis of a C whose last four directions carry most of the mass."""
    keys = rand(I, 300) * torch.tensor([0.3] * (I - 4) + [3.0] * 4, dtype=torch.float64)[:, None]
    mixed = torch.linalg.qr(rand(I, I))[0] @ keys
    return Eigenbasis.of(SecondMoment(mixed @ mixed.T / 300, 300))


@pytest.fixture
def free(basis):
    """Û of ten directions."""
    found = null_space(basis, share=0.1).basis
    assert found.shape == (I, 10)
    return found


def change(residual, keys, previous, basis, ridge=L2):
    left, right = alphaedit_update(residual, keys, previous, basis, ridge)
    return left @ right


def relative(first, second):
    return torch.linalg.norm(first - second) / torch.linalg.norm(second)


# The closed form


def test_the_projector_is_one(free):
    projector = free @ free.T
    torch.testing.assert_close(projector @ projector, projector, rtol=0, atol=1e-14)
    torch.testing.assert_close(projector, projector.T, rtol=0, atol=1e-15)


@pytest.mark.parametrize("columns", [0, M, I])
def test_protected_keys_do_not_move(rand, basis, free, columns):
    protected = basis.vectors[:, 10:] @ rand(4, 6)
    found = change(rand(O, N), rand(I, N), rand(I, columns), free)
    assert torch.linalg.norm(found) > 0.1
    assert torch.linalg.norm(found @ protected) < 1e-12


@pytest.mark.parametrize("columns", [0, M, I])  # with three facts: fewer columns than directions, and more
def test_every_form_is_the_published_one(rand, free, columns):
    residual, keys, previous = rand(O, N), rand(I, N), rand(I, columns)
    projector, one = free @ free.T, torch.eye(I, dtype=torch.float64)
    bracket = (previous @ previous.T + keys @ keys.T) @ projector + L2 * one
    published = residual @ keys.T @ projector @ torch.linalg.inv(bracket)
    joined = projector @ torch.cat([keys, previous], 1)
    inner = joined.T @ joined + L2 * torch.eye(N + columns, dtype=torch.float64)
    cheap = torch.cat([residual, torch.zeros(O, columns).double()], 1) @ torch.linalg.solve(inner, joined.T)
    found = change(residual, keys, previous, free)
    assert relative(found, published) < 1e-13
    assert relative(found, cheap) < 1e-14


def test_both_routes_agree(rand, free):
    """Seven columns in ten directions take one route; the same with empty columns takes the other."""
    residual, keys, previous = rand(O, N), rand(I, N), rand(I, M)
    padded = torch.cat([previous, torch.zeros(I, 10).double()], 1)
    assert relative(change(residual, keys, padded, free), change(residual, keys, previous, free)) < 1e-14


def test_one_fact_reaches_what_the_ridge_leaves(rand, free):
    residual, key = rand(O, 1), rand(I, 1)
    energy = float((free.T @ key).norm() ** 2)
    expected = residual * energy / (energy + L2)
    torch.testing.assert_close(change(residual, key, None, free) @ key, expected, rtol=1e-13, atol=1e-13)


def test_without_a_ridge_it_interpolates(rand, free):
    residual, keys, previous = rand(O, N), rand(I, N), rand(I, M)
    found = change(residual, keys, previous, free, 1e-11)
    torch.testing.assert_close(found @ keys, residual, rtol=1e-8, atol=1e-8)
    assert torch.linalg.norm(found @ previous) < 1e-8


def test_previous_keys_keep_their_outputs(rand, free):
    residual, keys, previous = rand(O, N), rand(I, N), 100 * rand(I, M)
    moved = change(residual, keys, None, free) @ previous
    kept = change(residual, keys, previous, free) @ previous
    assert torch.linalg.norm(kept) < 1e-3 * torch.linalg.norm(moved)


def test_the_order_of_facts_does_not_matter(rand, free):
    residual, keys, previous = rand(O, N), rand(I, N), rand(I, M)
    order = [2, 0, 1]
    again = change(residual[:, order], keys[:, order], previous, free)
    assert relative(again, change(residual, keys, previous, free)) < 1e-14


def test_keys_that_cannot_be_told_apart_are_refused(rand, free):
    key = rand(I, 1)
    with pytest.raises(EditError, match="larger L2"):
        change(rand(O, 2), torch.cat([key, key], 1), None, free, 1e-30)


# The null space


def test_the_share_and_the_threshold_say_how_many_directions():
    basis = with_values(1, 1, 2, 4, 12)
    found = null_space(basis, share=0.2)
    assert found.basis.shape == (5, 3)
    assert (found.threshold, found.mass, found.share) == (2.0, 4.0, 0.2)
    assert null_space(basis, share=0.19).basis.shape[1] == 2
    assert null_space(basis, threshold=2.0).basis.shape[1] == 2
    assert null_space(basis, threshold=3.0).share == 0.2
    assert null_space(basis, share=1.0).basis.shape[1] == 5


@pytest.mark.parametrize("limit", [{"share": 0.04}, {"threshold": 0.9}])
def test_no_direction_left_is_refused_with_what_would_do(limit):
    with pytest.raises(SettingError, match=r"leaves no direction .* is 1, a share of 0\.05"):
        null_space(with_values(1, 1, 2, 4, 12), **limit)


def test_without_a_limit_the_participation_ratio_decides():
    assert null_space(with_values(1, 1, 1, 1, 100)).basis.shape[1] == 4
    # (1 + 1 + 1 + 1 + λ)² / (4 + λ²) exceeds 4 as long as λ < 8/3.
    assert null_space(with_values(1, 1, 1, 1, 2.6)).basis.shape[1] == 5
    assert null_space(with_values(1, 1, 1, 1, 2.7)).basis.shape[1] == 4
    # Directions that the text never shows are free.
    assert null_space(with_values(0, 0, 1, 1, 50)).basis.shape[1] == 4


def test_what_the_participation_ratio_promises(rand):
    """Unit residuals at keys drawn like the text disturb it least, on average, with as many directions as chosen."""
    basis = with_values(*torch.linspace(0.1, 1, 30).tolist(), 3, 8, 20)
    chosen = null_space(basis).basis.shape[1]
    keys = basis.values.sqrt()[:, None] * rand(len(basis.values), 4000)

    def disturbance(size):
        free = keys[:size]
        return float((free**2 * basis.values[:size, None]).sum(0).mean() / (free**2).sum(0).mean() ** 2)

    found = [disturbance(size) for size in range(1, len(basis.values) + 1)]
    assert abs(found.index(min(found)) + 1 - chosen) <= 1
    assert found[chosen - 1] < 0.5 * found[-1]


def test_the_calibration_is_blind_to_the_unit_of_keys(rand, basis):
    residual, keys = rand(O, N), rand(I, N)
    scaled = Eigenbasis(100 * basis.values, basis.vectors)
    first, second = null_space(basis), null_space(scaled)
    assert first.share == pytest.approx(second.share)
    one = change(residual, keys, None, first.basis, 0.25 * first.mass) @ keys
    other = change(residual, 10 * keys, None, second.basis, 0.25 * second.mass) @ (10 * keys)
    torch.testing.assert_close(one, other)


# The editor


def around(tiny, **more):
    return Surroundings(moments=Moments(lambda: tiny, TEXTS), **more)


def test_the_record_says_what_was_used(tiny):
    delta = alphaedit(*tiny, FACTS, AlphaEditConfig(layers=(1, 2), null_share=0.3, **QUICK), around(tiny))
    first, second = delta.notes["null_spaces"]
    assert (first["layer"], second["layer"]) == (1, 2)
    moment = second_moments(*tiny, [1], TEXTS)[1]
    values = torch.linalg.eigvalsh(moment.matrix)
    assert first["of"] == 48
    assert first["dimension"] == int((values < first["threshold"] * (1 + 1e-9)).sum())
    assert first["mass"] == pytest.approx(float(values[: first["dimension"]].sum()))
    assert 0.2 < first["share"] <= 0.3
    assert first["l2"] == pytest.approx(0.25 * first["mass"])
    published = AlphaEditConfig(layers=(1,), threshold=first["threshold"], l2=10, **QUICK)
    (found,) = alphaedit(*tiny, FACTS, published, around(tiny)).notes["null_spaces"]
    assert (found["l2"], found["dimension"]) == (10, first["dimension"] - 1)


def test_what_text_uses_most_is_left_alone(family):
    model, tokenizer = family
    moments = Moments(lambda: (model, tokenizer), TEXTS)
    delta = alphaedit(model, tokenizer, FACTS, AlphaEditConfig(layers=(1,), **QUICK), Surroundings(moments=moments))
    size = delta.notes["null_spaces"][0]["dimension"]
    protected = moments.eigenbases([1])[1].vectors[:, size:]
    projection = layout_of(model).mlp_out[1]
    value = delta.changes[projection.name].value()
    value = value.T if projection.transposed else value
    assert 0 < size < projection.d_in
    assert torch.linalg.norm(value @ protected) < 1e-6 * torch.linalg.norm(value)


def test_a_second_edit_leaves_the_first_where_it_is(tiny):
    config = AlphaEditConfig(layers=(1,), **QUICK)
    first = alphaedit(*tiny, FACTS[:1], config, around(tiny))
    with applied(tiny[0], first):
        free = alphaedit(*tiny, FACTS[1:], config, around(tiny))
        strong = {name: 50 * key for name, key in first.keys.items()}
        kept = alphaedit(*tiny, FACTS[1:], config, around(tiny, previous_keys=strong))
    for name, key in first.keys.items():
        moved = torch.linalg.norm(free.changes[name].value() @ key.double())
        assert torch.linalg.norm(kept.changes[name].value() @ key.double()) < 0.2 * moved


def test_c_is_decomposed_once(tiny, monkeypatch):
    calls = []
    eigh = torch.linalg.eigh
    monkeypatch.setattr("torch.linalg.eigh", lambda matrix: calls.append(1) or eigh(matrix))
    told = []
    first = Moments(lambda: tiny, TEXTS, model_id="m" * 64)
    seen = first.eigenbases([1, 2], lambda *step: told.append(step))[1]
    first.eigenbases([1, 2])
    again = Moments(lambda: pytest.fail("the model was read"), TEXTS, model_id="m" * 64).eigenbases([1])[1]
    assert len(calls) == 2
    assert told == [(0, 2), (1, 2), (2, 2)]
    assert torch.equal(seen.values, again.values)
    assert torch.equal(seen.vectors, again.vectors)
    for file in (cache_folder() / "moments").glob("*-1.eigenbasis.*"):
        file.write_bytes(file.read_bytes()[:50])
    mended = Moments(lambda: tiny, TEXTS, model_id="m" * 64).eigenbases([1])[1]
    assert len(calls) == 3
    assert torch.equal(seen.vectors, mended.vectors)


def test_two_limits_or_none_that_holds_mass_are_refused(tiny):
    with pytest.raises(ValidationError, match="give one of them"):
        AlphaEditConfig(null_share=0.5, threshold=0.02)
    little = Surroundings(moments=Moments(lambda: tiny, ["Hi."]))
    with pytest.raises(EditError, match="more text"):
        alphaedit(*tiny, FACTS, AlphaEditConfig(layers=(1,), threshold=1e-30, **QUICK), little)


def test_a_moment_that_is_not_finite_says_so():
    with pytest.raises(EditError, match="NaN"):
        Eigenbasis.of(SecondMoment(torch.full((3, 3), float("nan")).double(), 1))
