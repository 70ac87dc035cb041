"""Confidence intervals, paired comparisons and significance from the outcome of every query."""

import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from itmbench.errors import InputError

LEVEL = 0.05
"""Significance level; intervals cover 1 - LEVEL."""
RESAMPLES, PERMUTATIONS = 5_000, 10_000
BLOCK = 250
"""Resamples drawn at once: 5 MB of weights for 5,000 images."""
RECALL = re.compile(r"(i2t|t2i)/R@(\d+)")
TESTABLE = "i2t/R@K, t2i/R@K, rSum, hard_negative_accuracy, i2t/mAP, t2i/mAP or mAP"

QueryTable = Mapping[str, NDArray[Any]]
"""One row a query, as in `Evaluation.per_query`: columns "direction", "query", "image", and "rank" or "ap"."""


class Part(NamedTuple):
    """The mean over the queries of one direction: of hits within rank k, or of AP if k is None."""

    direction: str
    k: int | None


class Interval(NamedTuple):
    """A 95 % confidence interval, in the unit of its metric."""

    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.low:.3g} to {self.high:.3g}"


class Difference(NamedTuple):
    """Difference of two means, its 95 % interval, and the p-value of the permutation test."""

    difference: float
    low: float
    high: float
    p: float

    @property
    def verdict(self) -> str:
        """ "better" or "worse" if p is below 0.05 and the interval excludes 0, else "not distinguishable"; "untested"
        without values.
        """
        if np.isnan(self.p):
            return "untested"
        if self.p >= LEVEL or self.low <= 0 <= self.high:
            return "not distinguishable"
        return "better" if self.difference > 0 else "worse"

    def __str__(self) -> str:
        bounds = f"95 % interval {self.low:+.3g} to {self.high:+.3g}"
        return f"{self.difference:+.3g} ({bounds}, p = {self.p:.2g}): {self.verdict}"


def parts(metric: str) -> dict[Part, float] | None:
    """The weights of the query means that sum to a metric; None if the stored query outcomes do not determine it."""
    if metric == "rSum":
        return {Part(direction, k): 100 for direction in ("i2t", "t2i") for k in (1, 5, 10)}
    if metric == "hard_negative_accuracy":
        return {Part("hard", 1): 1}
    if metric in ("mAP", "i2t/mAP", "t2i/mAP"):
        directions = ("i2t", "t2i") if metric == "mAP" else (metric[:3],)
        return {Part(direction, None): 1 / len(directions) for direction in directions}
    match = RECALL.fullmatch(metric)
    return {Part(match[1], int(match[2])): 1} if match else None


def holm(p: Sequence[float] | NDArray[np.float64]) -> NDArray[np.float64]:
    """Adjust p-values for multiple tests; NaN marks a test that was not made and stays NaN.

    Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 6 (1979).

    >>> holm([0.01, 0.04, 0.03]).tolist()
    [0.03, 0.06, 0.06]
    """
    values = np.asarray(p, np.float64)
    order = np.argsort(values)[: np.isfinite(values).sum()]  # NaN sorts last
    adjusted = np.full_like(values, np.nan)
    adjusted[order] = np.minimum(np.maximum.accumulate(values[order] * np.arange(len(order), 0, -1)), 1)
    return adjusted


class PairedResults:
    """Results of methods that answered the same queries, with the uncertainty of their metrics and differences.

    Queries of one image (the image, its captions, its near twins) are not independent, so images are resampled and
    sign-flipped whole.

    - Intervals: paired bootstrap, percentile method (Efron and Tibshirani, An Introduction to the Bootstrap, 1993).
      Images are resampled jointly for all methods, and seeds within each method. With few seeds the interval
      understates seed variance; with one it ignores it.
    - p-values: two-sided paired permutation test by sign flips (Good, Permutation, Parametric and Bootstrap Tests of
      Hypotheses, 2005). Under the null hypothesis, an image's contribution to the difference of the seed means is as
      likely to have the opposite sign. It covers the variance of images, not of seeds.

    Args:
        tables: method -> one query table per seed.
        metrics: "i2t/R@K" or "t2i/R@K" for any K, "rSum", "hard_negative_accuracy", "i2t/mAP", "t2i/mAP" or "mAP".
        comparisons: number of tests that will be corrected for. Many tests need more permutations, so that the
            smallest possible p-value can still become significant.

    Raises:
        InputError: a metric cannot be computed from single queries, or two tables hold different queries.
    """

    def __init__(
        self, tables: Mapping[str, Sequence[QueryTable]], metrics: Sequence[str], comparisons: int = 1
    ) -> None:
        recipes = [_recipe(metric) for metric in metrics]
        needed = list(dict.fromkeys(part for recipe in recipes for part in recipe))
        weights = np.array([[recipe.get(part, 0) for recipe in recipes] for part in needed])
        counts, sums = _by_image([(method, table) for method, runs in tables.items() for table in runs], needed)
        self._metrics = {metric: place for place, metric in enumerate(metrics)}
        self._methods = {method: place for place, method in enumerate(tables)}
        seeds = [len(runs) for runs in tables.values()]
        by_method = np.split(sums, np.cumsum(seeds)[:-1])
        shares = _contract(np.stack([runs.mean(0) for runs in by_method]) / counts.sum(0), weights)
        self._means = shares.sum(1)
        # What all methods share cancels in every difference; without it, single precision suffices.
        self._shares = shares - np.nan_to_num(shares).mean(0)
        self._permutations = max(PERMUTATIONS, round(comparisons * 2.5 / LEVEL))
        self._generator = np.random.default_rng(0)
        self._resampled = _bootstrap(self._generator, counts, sums, weights, seeds)

    @cached_property
    def _flipped(self) -> NDArray[np.float32]:
        return _flip_signs(self._generator, self._shares, self._permutations)

    def mean(self, method: str, metric: str) -> float:
        """A method's metric, averaged over its seeds, in the unit of the metric; NaN if it has no such queries."""
        return float(self._means[self._methods[method], self._metrics[metric]])

    def interval(self, method: str, metric: str) -> Interval:
        """95 % bootstrap interval of a method's metric; NaN if it has no such queries."""
        return _percentiles(self._resampled[:, self._methods[method], self._metrics[metric]])

    def difference(self, a: str, b: str, metric: str) -> Difference:
        """Metric of method ``a`` minus that of ``b``, in the unit of the metric; NaN if either has no such queries."""
        first, second, column = self._methods[a], self._methods[b], self._metrics[metric]
        difference = self.mean(a, metric) - self.mean(b, metric)
        if np.isnan(difference):
            return Difference(difference, difference, difference, difference)
        low, high = _percentiles(self._resampled[:, first, column] - self._resampled[:, second, column])
        flipped = np.abs(self._flipped[:, first, column] - self._flipped[:, second, column])
        rounding = 1e-5 * np.abs(self._shares[first, :, column] - self._shares[second, :, column]).sum()
        p = (1 + (flipped >= abs(difference) - rounding).sum()) / (1 + len(flipped))
        return Difference(difference, low, high, float(p))

    def leaders(self, metric: str, methods: Sequence[str]) -> list[str]:
        """The best of some methods and those not significantly worse than it (Holm); empty if none has the metric."""
        measured = [name for name in methods if not np.isnan(self.mean(name, metric))]
        ranked = sorted(measured, key=lambda name: -self.mean(name, metric))
        behind = [self.difference(ranked[0], name, metric) for name in ranked[1:]]
        adjusted = holm([difference.p for difference in behind])
        return ranked[:1] + [
            name
            for name, difference, p in zip(ranked[1:], behind, adjusted, strict=True)
            if difference._replace(p=p).verdict != "better"
        ]


def _recipe(metric: str) -> dict[Part, float]:
    recipe = parts(metric)
    if recipe is None:
        raise InputError(f"{metric}: not determined by the outcomes of single queries; choose {TESTABLE}")
    return recipe


def _by_image(
    runs: Sequence[tuple[str, QueryTable]], needed: Sequence[Part]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Query counts `[images, parts]`, and sums of query outcomes `[runs, images, parts]`, NaN where a run has none."""
    reference: dict[str, tuple[str, QueryTable]] = {}
    by_direction = [(method, _directions(table)) for method, table in runs]
    for method, directions in by_direction:
        for direction, table in directions.items():
            reference.setdefault(direction, (method, table))
    images = np.unique(np.concatenate([table["image"] for _, table in reference.values()]))
    owners = {direction: np.searchsorted(images, table["image"]) for direction, (_, table) in reference.items()}
    counts = np.zeros((len(images), len(needed)))
    sums = np.full((len(runs), len(images), len(needed)), np.nan)
    for (method, directions), run_sums in zip(by_direction, sums, strict=True):
        aligned = {name: _align(table, method, *reference[name]) for name, table in directions.items()}
        for place, part in enumerate(needed):
            column = "ap" if part.k is None else "rank"
            if part.direction in aligned and column in aligned[part.direction]:
                values, owner = aligned[part.direction][column], owners[part.direction]
                run_sums[:, place] = np.bincount(owner, values if part.k is None else values <= part.k, len(images))
                counts[:, place] = np.bincount(owner, minlength=len(images))
    return counts, sums


def _directions(table: QueryTable) -> dict[str, QueryTable]:
    """The queries of each direction."""
    rows = {direction: table["direction"] == direction for direction in np.unique(table["direction"])}
    return {direction: {key: column[at] for key, column in table.items()} for direction, at in rows.items()}


def _align(table: QueryTable, method: str, reference_method: str, reference: QueryTable) -> QueryTable:
    """The queries in the order of the reference."""
    keys = ("query", "image")
    if all(np.array_equal(table[key], reference[key]) for key in keys):
        return table
    order, target = (np.lexsort([t[key].astype(str) for key in keys]) for t in (table, reference))
    if not all(np.array_equal(table[key][order], reference[key][target]) for key in keys):
        raise InputError(f"{reference_method} and {method}: different queries; compare results on the same test items")
    return {key: column[order][np.argsort(target)] for key, column in table.items()}


def _contract(values: NDArray[Any], weights: NDArray[Any]) -> NDArray[Any]:
    """`[…, parts]` x `[parts, metrics]`; a part that is NaN affects only the metrics that use it."""
    return np.stack([values[..., column != 0] @ column[column != 0] for column in weights.T], -1)


def _percentiles(samples: NDArray[np.float32]) -> Interval:
    if np.isnan(samples).all():
        return Interval(np.nan, np.nan)
    low, high = np.nanpercentile(samples, (50 * LEVEL, 100 - 50 * LEVEL))
    return Interval(float(low), float(high))


def _bootstrap(
    generator: np.random.Generator,
    counts: NDArray[np.float64],
    sums: NDArray[np.float64],
    weights: NDArray[np.float64],
    seeds: Sequence[int],
) -> NDArray[np.float32]:
    """Every method's metrics with images and seeds resampled `[resamples, methods, metrics]`."""
    images, (runs, _, kinds) = len(counts), sums.shape
    columns = np.concatenate([counts, sums.transpose(1, 0, 2).reshape(images, -1)], 1).astype(np.float32)
    metrics = np.empty((RESAMPLES, len(seeds), weights.shape[1]), np.float32)
    for start in range(0, RESAMPLES, BLOCK):
        rows = min(BLOCK, RESAMPLES - start)
        drawn = generator.integers(0, images, (rows, images)) + images * np.arange(rows)[:, None]
        multiplicity = np.bincount(drawn.ravel(), minlength=rows * images).reshape(rows, images).astype(np.float32)
        totals = multiplicity @ columns
        with np.errstate(invalid="ignore"):  # a resample without any query of a direction has no mean of it
            means = totals[:, kinds:].reshape(rows, runs, kinds) / totals[:, None, :kinds]
        values = _contract(means, weights)
        for method, of_method in enumerate(np.split(values, np.cumsum(seeds)[:-1], axis=1)):
            n = seeds[method]
            share = generator.multinomial(n, np.full(n, 1 / n), rows) / n
            metrics[start : start + rows, method] = np.einsum("rs,rsm->rm", share, of_method)
    return metrics


def _flip_signs(generator: np.random.Generator, shares: NDArray[np.float64], draws: int) -> NDArray[np.float32]:
    """Sums over images `[draws, methods, metrics]` of the shares `[methods, images, metrics]` with random signs."""
    methods, images, metrics = shares.shape
    columns = shares.transpose(1, 0, 2).reshape(images, -1).astype(np.float32)
    sums = np.empty((draws, methods * metrics), np.float32)
    for start in range(0, draws, BLOCK):
        rows = min(BLOCK, draws - start)
        signs = generator.integers(0, 2, (rows, images), np.int8).astype(np.float32)
        sums[start : start + rows] = (2 * signs - 1) @ columns
    return sums.reshape(draws, methods, metrics)
