"""The closed form against an independent one: QR of the centred data, as Björck and Golub (1973) solve it."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from itmbench.methods.cca import Moments, canonical_correlations

Array = NDArray[np.float64]


def pairs(items: int = 60, dx: int = 6, dy: int = 4) -> tuple[Array, Array]:
    """Correlated views with means far from 0."""
    generator = np.random.default_rng(1)
    shared = generator.normal(size=(items, 3))
    x = shared @ generator.normal(size=(3, dx)) + generator.normal(size=(items, dx)) + 20
    return x, shared @ generator.normal(size=(3, dy)) + generator.normal(size=(items, dy)) - 7


def moments(x: Array, y: Array) -> Moments:
    a, b = torch.from_numpy(x), torch.from_numpy(y)
    return Moments(torch.tensor([len(a)]), a.sum(0), b.sum(0), a.T @ a, b.T @ b, a.T @ b)


def solve(x: Array, y: Array, regularisation: float = 0.0) -> tuple[Array, Array, Array]:
    a, b, correlations = (each.numpy() for each in canonical_correlations(moments(x, y), regularisation))
    return a, b, correlations


def by_qr(x: Array, y: Array) -> Array:
    """Canonical correlations: cosines of the principal angles between the column spaces."""
    x, y = x - x.mean(0), y - y.mean(0)
    return np.linalg.svd(np.linalg.qr(x)[0].T @ np.linalg.qr(y)[0], compute_uv=False)


def test_correlations_are_those_of_the_qr_decomposition_and_of_the_projections() -> None:
    x, y = pairs()
    a, b, found = solve(x, y)
    np.testing.assert_allclose(found, by_qr(x, y), atol=1e-10)
    assert found[0] > 0.8 > 0.4 > found[-1]
    together = np.corrcoef(x @ a, y @ b, rowvar=False)
    np.testing.assert_allclose(together[:4, 4:], np.diag(found), atol=1e-9)
    np.testing.assert_allclose(together[:4, :4], np.eye(4), atol=1e-9)
    np.testing.assert_allclose(np.var(x @ a, axis=0), 1, atol=1e-9)


def test_an_invertible_map_of_one_side_changes_nothing() -> None:
    x, y = pairs()
    mapped = x @ np.random.default_rng(2).normal(size=(6, 6)) + 3
    projections = [(each - each.mean(0)) @ solve(each, y)[0] for each in (x, mapped)]
    np.testing.assert_allclose(solve(mapped, y)[2], solve(x, y)[2], atol=1e-9)
    np.testing.assert_allclose(np.abs(projections[1]), np.abs(projections[0]), atol=1e-7)
    # A ridge term is not indifferent to the units.
    assert not np.allclose(solve(mapped, y, 0.1)[2], solve(x, y, 0.1)[2], atol=1e-3)


def test_the_ridge_term_is_a_share_of_the_mean_eigenvalue() -> None:
    x, y = pairs()
    cxx, cyy = (np.cov(each, rowvar=False, bias=True) for each in (x, y))
    cxy = (x - x.mean(0)).T @ (y - y.mean(0)) / len(x)
    cxx += 0.5 * np.linalg.eigvalsh(cxx).mean() * np.eye(6)
    cyy += 0.5 * np.linalg.eigvalsh(cyy).mean() * np.eye(4)
    # Hotelling's eigenvalue problem: Cxx^-1 Cxy Cyy^-1 Cyx a = r^2 a.
    squares = np.linalg.eigvals(np.linalg.solve(cxx, cxy) @ np.linalg.solve(cyy, cxy.T)).real
    a, b, found = solve(x, y, 0.5)
    np.testing.assert_allclose(found, np.sqrt(np.sort(squares)[::-1][:4]), atol=1e-9)
    np.testing.assert_allclose(np.linalg.solve(cxx, cxy) @ b, a * found, atol=1e-9)
    np.testing.assert_allclose(solve(3 * x, y, 0.5)[2], found, atol=1e-9)  # relative: a change of units is no matter


@pytest.mark.parametrize("regularisation", [0.0, 0.1])
def test_columns_that_repeat_or_never_vary_give_finite_numbers(regularisation: float) -> None:
    x, y = pairs()
    spoilt = np.concatenate([x, x, np.full((60, 2), 5.0)], axis=1)
    a, b, found = solve(spoilt, y, regularisation)
    assert np.isfinite(a).all() and np.isfinite(b).all()
    if not regularisation:
        np.testing.assert_allclose(found, by_qr(x, y), atol=1e-7)


def test_more_numbers_than_pairs() -> None:
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=(5, 9)), generator.normal(size=(5, 8))
    np.testing.assert_allclose(solve(x, y)[2], np.ones(4), atol=1e-6)  # four dimensions hold five points, exactly
    assert solve(x, y, 1.0)[2].max() < 0.99


def test_a_side_that_never_varies_correlates_with_nothing() -> None:
    assert solve(np.full((60, 2), 5.0), pairs()[1], 0.1)[2].shape == (0,)
