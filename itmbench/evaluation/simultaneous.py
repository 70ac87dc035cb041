"""All differences between the methods of a table tested at once, over images and seeds.

The family is every pair of methods on every metric. A difference is divided by its standard error; the largest of all
these ratios is compared with its distribution over joint resamples (single-step maxT: Westfall and Young,
Resampling-Based Multiple Testing, 1993; for "which are not worse than the best": Hsu, Multiple Comparisons, 1996). So
with probability 95 % no true null hypothesis of the family is rejected, and dependent metrics cost nothing.

`docs/statistics.md` derives the formulae and shows a simulation.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.05
"""Significance level; intervals cover 1 - LEVEL."""
DRAWS = 4_999
"""Joint resamples; p-values are multiples of 1 / (DRAWS + 1)."""
BLOCK = 250
"""Resamples drawn at once."""

Floats = NDArray[np.float64]


class Method(NamedTuple):
    """The runs of a method on `G` groups of images, for `K` metrics; NaN where it lacks a metric."""

    shares: Floats  # `[seeds, G, K]`; they sum over groups to the metrics of a run
    centred: Floats  # `[seeds, G, K]`, without the share that the run's mean would give each group; they sum to 0
    runs: Sequence[str]  # identifies the training of each run; runs of two methods that share theirs have equal names
    fixed: bool = False  # whether no seed can change the method; if not, there are at least two seeds


class Comparisons(NamedTuple):
    """Differences of pairs of methods `[P, K]`, first minus second, with simultaneous intervals and adjusted p-values.

    The pairs are those of ``np.triu_indices(methods, 1)``.
    """

    difference: Floats
    low: Floats
    high: Floats
    p: Floats


def compare_all(methods: Sequence[Method], draws: int = DRAWS, seed: int = 0) -> Comparisons:
    """Compare all pairs of at least two methods on all metrics, with some resamples and their seed."""
    generator = np.random.default_rng(seed)
    pairs = _Pairs(methods)
    observed = pairs.scores(pairs.difference, pairs.difference, *pairs.seed_variance(pairs.observed))
    largest = np.concatenate([pairs.draw(generator, min(BLOCK, draws - at)) for at in range(0, draws, BLOCK)])
    largest.sort()
    rounding = 1 - 1e-4  # what is equal up to rounding counts as reached
    p = (1 + draws - np.searchsorted(largest, observed.z * rounding)) / (1 + draws)
    critical = largest[1 - round(LEVEL * (draws + 1))] / rounding  # exceeded exactly where p is below LEVEL
    bound = np.sqrt(observed.variance) * t_of_z(critical, observed.df)
    missing = np.isnan(pairs.difference)
    return Comparisons(
        pairs.difference, pairs.difference - bound, pairs.difference + bound, np.where(missing, np.nan, p)
    )


class _Scores(NamedTuple):
    z: Floats
    variance: Floats
    df: Floats


class _Pairs:
    """Variance components of all pairs, and draws of what they would be without any true difference.

    Seeds act through `U` units: the methods, the differences of pairs that share their training, and one that never
    varies. A pair has two of them: its methods, or its difference and the last.
    """

    def __init__(self, methods: Sequence[Method]) -> None:
        self.first, self.second = np.triu_indices(len(methods), 1)
        shares = np.stack([method.shares.mean(0) for method in methods])
        means = shares.sum(1)
        self.groups = max(shares.shape[1], 2)
        self.difference = means[self.first] - means[self.second]
        # What all methods share cancels in every difference; without it, single precision suffices for the draws.
        shares -= np.nan_to_num(shares).mean(0)
        self.columns = shares.transpose(1, 0, 2).reshape(shares.shape[1], -1).astype(np.float32)
        pairs = list(zip(self.first.tolist(), self.second.tolist(), strict=True))
        self.squares = np.stack([((shares[a] - shares[b]) ** 2).sum(0) for a, b in pairs])

        self.trainings = [(place,) if method.fixed else tuple(method.runs) for place, method in enumerate(methods)]
        paired = np.array([self.trainings[a] == self.trainings[b] for a, b in pairs])
        self.paired = [pair for pair, shared in zip(pairs, paired, strict=True) if shared]
        self.one = np.where(paired, len(methods) - 1 + np.cumsum(paired), self.first)
        self.two = np.where(paired, -1, self.second)
        self.deviations = [
            (method.shares.sum(1) - mean) * (not method.fixed) for method, mean in zip(methods, means, strict=True)
        ]
        self.observed = units = self._units(self.deviations)
        self.seeds = np.array([len(unit) for unit in units])[:, None]
        self.free = self.seeds - 1
        self.free[[place for place, method in enumerate(methods) if method.fixed]] = 0
        self.pools = self._pools()
        residuals = self._units([method.centred - method.centred.mean(0) for method in methods])
        self.interaction = np.stack([self._of_mean(residual) for residual in residuals])
        used, extra, _ = self._variances(units)
        own = np.stack([_variance(unit) for unit in units])
        halves = np.where(np.arange(len(units)) < len(methods), 1, 2)[:, None]  # a difference varies twice as much
        with np.errstate(invalid="ignore", divide="ignore"):
            standard = [np.where(each > 0, unit / np.sqrt(each), 0) for unit, each in zip(units, own, strict=True)]
            of_all = np.asarray(np.linalg.qr(np.concatenate(standard[: len(methods)]), "r"))
            self.standard = np.nan_to_num(of_all / np.sqrt((of_all**2).sum(0))).astype(np.float32)
            self.scale = np.sqrt(np.nan_to_num(used) * (own > 0) * self.seeds / halves)
            self.share = np.nan_to_num(np.sqrt(extra / used))

    def _units(self, of_methods: Sequence[Floats]) -> list[Floats]:
        """Values `[..., K]` of all units from those of the methods."""
        differences = [of_methods[a] - of_methods[b] for a, b in self.paired]
        return [*of_methods, *differences, np.zeros_like(of_methods[0][..., :1, :])]

    def _pools(self) -> list[tuple[list[int], float]]:
        """Places of units whose variances are averaged, and how often each counts because they depend on each other.

        All methods are a pool, and the differences within each training that several share.
        """
        count = len(self.trainings)
        pools = [([place for place in range(count) if self.free[place]], 1.0)]
        for training in dict.fromkeys(self.trainings[a] for a, _ in self.paired):
            members = [count + at for at, (a, _) in enumerate(self.paired) if self.trainings[a] == training]
            pools.append((members, self.trainings.count(training) / 2))
        return pools

    def _of_mean(self, residuals: Floats) -> Floats:
        """Variance `[K]` that the interaction of seeds and groups `[seeds, G, K]` gives the mean."""
        n, groups, _ = residuals.shape
        return (residuals**2).sum((0, 1)) * groups / (n * max(n - 1, 1) * max(groups - 1, 1))

    def _variances(self, units: Sequence[Floats]) -> tuple[Floats, Floats, Floats]:
        """Variance `[..., U, K]` of each unit's mean over seeds, the part that the groups do not account for already,
        and degrees of freedom, from deviations `[..., seeds, K]` of each unit.

        Three seeds estimate a variance badly, and may seem to agree by chance. So it is at least the unit's average
        over metrics, each in proportion to its variance over images, and at least the average of the pool. The
        degrees of freedom of the latter are Satterthwaite's: few if one variance dominates it.
        """
        own = np.stack([_variance(unit) for unit in units], -2)
        typical = _mean(self.squares, 0)[0]
        with np.errstate(invalid="ignore", divide="ignore"):
            floor = typical * _mean(np.where(typical > 0, own / typical, np.nan), -1)
            own = np.maximum(own, np.nan_to_num(floor))
            larger, free = own.copy(), np.broadcast_to(self.free, own.shape).astype(np.float64)
            for members, repeats in self.pools:
                variances, freedom = own[..., members, :], free[..., members, :]
                average, known = _mean(variances, -2), np.nan_to_num(variances)
                squares = (known**2 / freedom).sum(-2, keepdims=True) * repeats
                pooled = known.sum(-2, keepdims=True) ** 2 / squares
                free[..., members, :] = freedom + (pooled - freedom) * np.fmin(average / variances, 1)
                larger[..., members, :] = np.maximum(variances, average)
        used = larger / self.seeds
        return used, np.maximum(used - self.interaction, 0), np.where(free > 0, free, 1)

    def seed_variance(self, units: Sequence[Floats]) -> tuple[Floats, Floats]:
        """Variance `[..., P, K]` that seeds add to the pairs' differences, and its square over degrees of freedom."""
        used, extra, free = self._variances(units)
        squares = used**2 / free
        one, two = self.one, self.two
        return extra[..., one, :] + extra[..., two, :], squares[..., one, :] + squares[..., two, :]

    def scores(self, difference: Floats, over_groups: Floats, seeds: Floats, uncertainty: Floats) -> _Scores:
        """Differences `[..., P, K]` in standard errors, as normal quantiles; 0 where nothing varies.

        ``over_groups`` is the difference without what seeds drawn anew add: the sum of the groups' shares.
        """
        images = np.maximum(self.squares - over_groups**2 / self.groups, 1e-9 * self.squares)
        images *= self.groups / (self.groups - 1)
        variance = images + seeds
        with np.errstate(invalid="ignore", divide="ignore"):
            df = np.maximum(variance**2 / (images**2 / (self.groups - 1) + uncertainty), 1)
            z = z_of_t(np.abs(difference) / np.sqrt(variance), df)
        return _Scores(np.where(variance == 0, 0 * difference, z), variance, np.where(variance == 0, 1, df))

    def draw(self, generator: np.random.Generator, draws: int) -> Floats:
        """The largest score of the family `[draws]`: signs of groups flipped, and seeds drawn anew."""
        signs = generator.integers(0, 2, (draws, len(self.columns)), np.int8).astype(np.float32)
        flipped = ((2 * signs - 1) @ self.columns).reshape(draws, len(self.deviations), -1)
        images = flipped[:, self.first] - flipped[:, self.second]
        units = [new * scale for new, scale in zip(self._units(self._new(generator, draws)), self.scale, strict=True)]
        shift = np.stack([unit.mean(1) for unit in units], 1) * self.share
        difference = images + shift[:, self.one] - shift[:, self.two]
        z = self.scores(difference, images, *self.seed_variance(units)).z
        return np.asarray(np.nan_to_num(z, nan=0).reshape(draws, -1).max(1), np.float64)

    def _new(self, generator: np.random.Generator, draws: int) -> list[Floats]:
        """Standard normal deviations `[draws, seeds, K]` of new seeds of each method.

        Metrics depend on each other as they do over the seeds of all methods; those of one method are too few.
        """
        return [
            generator.standard_normal((draws, len(deviations), len(self.standard)), np.float32) @ self.standard
            for deviations in self.deviations
        ]


def _variance(deviations: Floats) -> Floats:
    """Sample variance `[..., K]` over seeds of deviations `[..., seeds, K]`; 0 of one seed."""
    centred = deviations - deviations.mean(-2, keepdims=True)
    return np.asarray((centred**2).sum(-2) / max(deviations.shape[-2] - 1, 1))


def _mean(values: Floats, axis: int) -> Floats:
    """Mean over an axis, which is kept, of the values that are not NaN; NaN if all are."""
    known = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(known, values, 0).sum(axis, keepdims=True) / known.sum(axis, keepdims=True))


def z_of_t(t: Floats, df: Floats) -> Floats:
    """The normal quantile of a non-negative t statistic, approximately (0.03 too low at 3 with 4 degrees of freedom).

    Wallace, "Bounds on normal approximations to Student's and the chi-square distributions", Annals of Mathematical
    Statistics 30 (1959). Observed and drawn statistics are transformed alike, so the error cancels.

    >>> round(float(z_of_t(np.array(2.776), np.array(4))), 2)  # 97.5 %: exactly 1.96
    1.95
    """
    return (8 * df + 1) / (8 * df + 3) * np.sqrt(df * np.log1p(t**2 / df))


def t_of_z(z: float, df: Floats) -> Floats:
    """The inverse of `z_of_t`."""
    with np.errstate(over="ignore"):
        return np.sqrt(df * np.expm1(((8 * df + 3) / (8 * df + 1) * z) ** 2 / df))
