"""Canonical correlation analysis (Hotelling 1936) with ridge terms (Vinod 1976), in closed form from second moments."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class Moments:
    """Sums over pairs of vectors x `[Dx]` and y `[Dy]`, in float64.

    Args:
        count: number of pairs, a scalar.
        x: sum of x `[Dx]`.
        y: sum of y `[Dy]`.
        xx: sum of x x' `[Dx, Dx]`.
        yy: sum of y y' `[Dy, Dy]`.
        xy: sum of x y' `[Dx, Dy]`.
    """

    count: Tensor
    x: Tensor
    y: Tensor
    xx: Tensor
    yy: Tensor
    xy: Tensor

    def covariances(self) -> tuple[Tensor, Tensor, Tensor]:
        """Covariance of x, covariance of y, and cross-covariance `[Dx, Dy]`."""
        x, y = self.x / self.count, self.y / self.count
        return (
            self.xx / self.count - torch.outer(x, x),
            self.yy / self.count - torch.outer(y, y),
            self.xy / self.count - torch.outer(x, y),
        )


def canonical_correlations(moments: Moments, regularisation: float) -> tuple[Tensor, Tensor, Tensor]:
    """Directions of either side whose projections correlate most, and their correlations.

    With A and B such that A' Cxx A = 1 and B' Cyy B = 1, where a multiple of the identity has been added to either
    covariance C, the singular value decomposition A' Cxy B = U diag(r) V' gives the directions A U and B V.

    Args:
        moments: of the training pairs.
        regularisation: what is added to all eigenvalues of a covariance, as a share of their mean.

    Returns:
        Directions `[Dx, K]` and `[Dy, K]`, and their correlations `[K]`, the largest first; K is the smaller of the two
        ranks, and 0 where one side never varies.
    """
    cxx, cyy, cxy = moments.covariances()
    a, b = whitening(cxx, regularisation), whitening(cyy, regularisation)
    u, correlations, vt = torch.linalg.svd(a.T @ cxy @ b, full_matrices=False)
    return a @ u, b @ vt.T, correlations


def whitening(covariance: Tensor, regularisation: float) -> Tensor:
    """A `[D, rank]` that turns C + r mean(eigenvalues of C) into the identity; leaves out the null space if r is 0.

    Args:
        covariance: C, symmetric `[D, D]`.
        regularisation: r, at least 0.
    """
    values, vectors = torch.linalg.eigh(covariance)
    values = values.clamp(min=0)
    # What rounding leaves of an eigenvalue of 0, as numpy.linalg.matrix_rank bounds it.
    nothing = values.max() * len(values) * torch.finfo(values.dtype).eps
    values = values + regularisation * values.mean()
    kept = values > nothing
    return vectors[:, kept] / values[kept].sqrt()
