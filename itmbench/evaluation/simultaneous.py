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
    """The runs of a method on `G` groups of images, for `K` metrics; NaN where it lacks a metric.

    Args:
        shares: `[seeds, G, K]`; they sum over groups to the metrics of a run.
        centred: `[seeds, G, K]`, without the share that the run's mean would give each group; they sum to 0.
        runs: identifies the training of each run; runs of two methods that share theirs have equal names.
        fixed: whether no seed can change the method; if not, there are at least two seeds.
    """

    shares: Floats
    centred: Floats
    runs: Sequence[str]
    fixed: bool = False


class Comparisons(NamedTuple):
    """Differences of pairs of methods `[P, K]`, first minus second, with simultaneous intervals and adjusted p-values.

    The pairs are those of ``np.triu_indices(methods, 1)``.
    """

    difference: Floats
    low: Floats
    high: Floats
    p: Floats


def compare_all(methods: Sequence[Method], draws: int = DRAWS) -> Comparisons:
    """Compare all pairs of at least two methods on all metrics."""
    generator = np.random.default_rng(0)
    pairs = _Pairs(methods)
    observed = pairs.scores(
        pairs.difference, pairs.difference, *pairs.seed_variance(pairs.deviations, pairs.deviations)
    )
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
    """Variance components of all pairs, and draws of what they would be without any true difference."""

    def __init__(self, methods: Sequence[Method]) -> None:
        self.methods = methods
        self.first, self.second = np.triu_indices(len(methods), 1)
        self.seeds = np.array([len(method.shares) for method in methods])
        self.fixed = np.array([method.fixed for method in methods])
        shares = np.stack([method.shares.mean(0) for method in methods])
        means = shares.sum(1)
        self.groups = max(shares.shape[1], 2)
        self.difference = means[self.first] - means[self.second]
        # What all methods share cancels in every difference; without it, single precision suffices for the draws.
        shares -= np.nan_to_num(shares).mean(0)
        self.columns = shares.transpose(1, 0, 2).reshape(shares.shape[1], -1).astype(np.float32)
        self.squares = np.stack([((shares[a] - shares[b]) ** 2).sum(0) for a, b in self.pairs])
        self.deviations = [method.shares.sum(1) - mean for method, mean in zip(methods, means, strict=True)]
        residuals = [method.centred - method.centred.mean(0) for method in methods]
        self.interaction = np.stack([self._of_mean(residual) for residual in residuals])
        self.paired = {
            place: self._of_mean(residuals[a] - residuals[b])
            for place, (a, b) in enumerate(self.pairs)
            if not (self.fixed[a] or self.fixed[b]) and list(methods[a].runs) == list(methods[b].runs)
        }
        own = np.stack([_variance(deviations) for deviations in self.deviations])
        used, extra, paired = self._variances(self.deviations, self.deviations)
        with np.errstate(invalid="ignore", divide="ignore"):
            self.scale = np.nan_to_num(np.sqrt(used * self.seeds[:, None] / own), posinf=0)
            self.share = np.nan_to_num(np.sqrt(extra / used))
            self.paired_share = {at: np.nan_to_num(np.sqrt(more / all_)) for at, (all_, more) in paired.items()}

    @property
    def pairs(self) -> list[tuple[int, int]]:
        return list(zip(self.first.tolist(), self.second.tolist(), strict=True))

    def _of_mean(self, residuals: Floats) -> Floats:
        """Variance `[K]` that the interaction of seeds and groups `[seeds, G, K]` gives the mean."""
        n, groups, _ = residuals.shape
        return (residuals**2).sum((0, 1)) * groups / (n * max(n - 1, 1) * max(groups - 1, 1))

    def _variances(self, scaled: Sequence[Floats], plain: Sequence[Floats]) -> tuple[Floats, Floats, dict[int, tuple]]:
        """Variance of each method's mean over seeds, and without what the groups account for already.

        From deviations `[..., seeds, K]`; for pairs that share their training, of their difference. Three seeds
        estimate it badly, and may seem to agree by chance, so it is at least the average variance of all methods.
        """
        free = np.where(self.fixed, 0, self.seeds - 1)
        own = np.stack([_variance(deviations) for deviations in scaled], -2)
        weights = free[:, None] * ~np.isnan(own)
        with np.errstate(invalid="ignore"):
            pooled = (np.nan_to_num(own) * weights).sum(-2, keepdims=True) / weights.sum(-2, keepdims=True)
        used = np.where(self.fixed[:, None], 0 * own, np.maximum(own, pooled) / self.seeds[:, None])
        paired = {}
        for place, interaction in self.paired.items():
            a, b = self.first[place], self.second[place]
            variance = _variance(plain[a] - plain[b]) / self.seeds[a]
            paired[place] = variance, np.maximum(variance - interaction, 0)
        return used, np.maximum(used - self.interaction, 0), paired

    def seed_variance(self, scaled: Sequence[Floats], plain: Sequence[Floats]) -> tuple[Floats, Floats]:
        """Variance `[..., P, K]` that seeds add to the pairs' differences, and its square over degrees of freedom."""
        used, extra, paired = self._variances(scaled, plain)
        count = max((~self.fixed).sum(), 1)
        free = np.maximum(self.seeds - 1, 1) * 4 * count / (count + 3)  # between those of own and pooled variance
        squares = used**2 / free[:, None]
        added = extra[..., self.first, :] + extra[..., self.second, :]
        uncertainty = squares[..., self.first, :] + squares[..., self.second, :]
        for place, (variance, more) in paired.items():
            added[..., place, :] = more
            uncertainty[..., place, :] = variance**2 / (self.seeds[self.first[place]] - 1)
        return added, uncertainty

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
        flipped = ((2 * signs - 1) @ self.columns).reshape(draws, len(self.methods), -1)
        plain = self._new_seeds(generator, draws)
        scaled = [new * scale for new, scale in zip(plain, self.scale, strict=True)]
        shift = flipped + np.stack([new.mean(1) for new in scaled], 1) * self.share
        difference = shift[:, self.first] - shift[:, self.second]
        images = flipped[:, self.first] - flipped[:, self.second]
        for place, share in self.paired_share.items():
            a, b = self.first[place], self.second[place]
            difference[:, place] = images[:, place] + (plain[a] - plain[b]).mean(1) * share
        z = self.scores(difference, images, *self.seed_variance(scaled, plain)).z
        return np.asarray(np.nan_to_num(z, nan=0).reshape(draws, -1).max(1), np.float64)

    def _new_seeds(self, generator: np.random.Generator, draws: int) -> list[Floats]:
        """Deviations `[draws, seeds, K]` of new seeds of each method, normal with the covariance of its own.

        Methods that share their training share these draws.
        """
        shared: dict[tuple[str, ...], NDArray[np.float32]] = {}
        new = []
        for number, (method, deviations) in enumerate(zip(self.methods, self.deviations, strict=True)):
            n = len(deviations)
            key = (str(number),) if method.fixed else tuple(method.runs)
            if key not in shared:
                shared[key] = generator.standard_normal((draws, n, n), np.float32)
            new.append(shared[key] @ (deviations * (not method.fixed) / np.sqrt(max(n - 1, 1))))
        return new


def _variance(deviations: Floats) -> Floats:
    """Sample variance `[..., K]` over seeds of deviations `[..., seeds, K]`; 0 of one seed."""
    centred = deviations - deviations.mean(-2, keepdims=True)
    return np.asarray((centred**2).sum(-2) / max(deviations.shape[-2] - 1, 1))


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
