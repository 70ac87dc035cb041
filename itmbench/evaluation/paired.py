"""Confidence intervals, paired comparisons and significance from the outcome of every query."""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from itmbench.errors import InputError
from itmbench.evaluation.simultaneous import DRAWS, LEVEL, Comparisons, Method, compare_all

SEEDS = 3
"""Fewer seeds say too little about their variance for a test."""
RECALL = re.compile(r"(i2t|t2i)/R@(\d+)")
TESTABLE = "i2t/R@K, t2i/R@K, rSum, hard_negative_accuracy, i2t/mAP, t2i/mAP or mAP"

QueryTable = Mapping[str, NDArray[Any]]
"""One row a query, as in `Evaluation.per_query`: columns "direction", "query", "image", "group" (in older results
missing: each image is one), and "rank" or "ap"."""


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
    """Difference of two means, its interval, and its p-value; both hold for all comparisons of the family together."""

    difference: float
    low: float
    high: float
    p: float

    @property
    def verdict(self) -> str:
        """ "better" or "worse" if p is below 0.05, as the interval then excludes 0; else "not distinguishable", or
        "untested" without a p-value.
        """
        if np.isnan(self.p):
            return "untested"
        if self.p >= LEVEL:
            return "not distinguishable"
        return "better" if self.difference > 0 else "worse"

    def __str__(self) -> str:
        bounds = f"95 % interval {self.low:+z.3g} to {self.high:+z.3g}"
        return f"{self.difference:+z.3g} ({bounds}, p {p_in_words(self.p)}): {self.verdict}"


def p_in_words(p: float) -> str:
    """A p-value with its sign; the smallest that resampling can give is a bound.

    >>> p_in_words(0.0312), p_in_words(1 / (DRAWS + 1))
    ('= 0.031', '<= 0.0002')
    """
    return f"<= {p:.2g}" if p <= 1.01 / (DRAWS + 1) else f"= {p:.2g}"


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


class PairedResults:
    """Results of methods that answered the same queries, with the uncertainty of their metrics and differences.

    Queries of one group of images (an image and its captions, near twins) are not independent, so groups are resampled
    whole. All pairs of methods and all metrics are one family (`itmbench.evaluation.simultaneous`).

    Args:
        tables: method -> one query table per seed.
        metrics: "i2t/R@K" or "t2i/R@K" for any K, "rSum", "hard_negative_accuracy", "i2t/mAP", "t2i/mAP" or "mAP".
        fixed: methods that no seed can change, such as ready-made embeddings. Others need three seeds to be tested.
        trainings: method -> a name of each seed's training; where two methods have equal names, their seeds are paired.

    Raises:
        InputError: a metric cannot be computed from single queries, or two tables hold different queries or groups.
    """

    def __init__(
        self,
        tables: Mapping[str, Sequence[QueryTable]],
        metrics: Sequence[str],
        fixed: Collection[str] = (),
        trainings: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        recipes = [_recipe(metric) for metric in metrics]
        needed = list(dict.fromkeys(part for recipe in recipes for part in recipe))
        weights = np.array([[recipe.get(part, 0) for recipe in recipes] for part in needed])
        counts, sums = _by_group([(method, table) for method, runs in tables.items() for table in runs], needed)
        self._metrics = {metric: place for place, metric in enumerate(metrics)}
        self._largest = weights.sum(0)
        shares = sums / counts.sum(0)
        centred = shares - shares.sum(1, keepdims=True) * counts / counts.sum(0)
        ends = np.cumsum([len(runs) for runs in tables.values()])[:-1]
        of_methods = (np.split(_contract(values, weights), ends) for values in (shares, centred))
        self._methods = {
            name: Method(shares, centred, (trainings or {}).get(name) or [name] * len(shares), name in fixed)
            for name, shares, centred in zip(tables, *of_methods, strict=True)
        }
        enough = [name for name, method in self._methods.items() if method.fixed or len(method.shares) >= SEEDS]
        self._tested = {name: place for place, name in enumerate(enough)}

    @cached_property
    def _family(self) -> Comparisons:
        return compare_all([self._methods[name] for name in self._tested])

    def tested(self, methods: Iterable[str]) -> int:
        """How many of some methods have enough seeds to be tested."""
        return sum(name in self._tested for name in methods)

    def mean(self, method: str, metric: str) -> float:
        """A method's metric, averaged over its seeds, in the unit of the metric; NaN if it has no such queries."""
        return float(self._methods[method].shares[..., self._metrics[metric]].sum(1).mean())

    def interval(self, method: str, metric: str) -> Interval:
        """95 % interval of a method's metric, from the variance between groups and the variance between seeds.

        It is cut off where the metric ends. With one seed it ignores seed variance. NaN if the method has no such
        queries.
        """
        column = self._metrics[metric]
        seeds, groups = self._methods[method].centred[..., column].shape
        runs = self._methods[method].shares[..., column].sum(1)
        images = (self._methods[method].centred[..., column].mean(0) ** 2).sum() * groups / max(groups - 1, 1)
        between = runs.var(ddof=1) / seeds if seeds > 1 else 0.0
        df = (images + between) ** 2 / (images**2 / max(groups - 1, 1) + between**2 / max(seeds - 1, 1) or 1)
        bound = stats.t.ppf(1 - LEVEL / 2, max(df, 1)) * np.sqrt(images + between)
        bound = bound if groups > 1 else np.inf  # one group says nothing about others
        low, high = np.clip((runs.mean() - bound, runs.mean() + bound), 0, self._largest[column])
        return Interval(float(low), float(high))

    def difference(self, a: str, b: str, metric: str) -> Difference:
        """Metric of method ``a`` minus that of ``b``, in the unit of the metric; its interval is cut off likewise.

        NaN if either has no such queries; without interval and p-value if either has too few seeds.
        """
        if a not in self._tested or b not in self._tested:
            return Difference(self.mean(a, metric) - self.mean(b, metric), np.nan, np.nan, np.nan)
        (first, second), column = sorted((self._tested[a], self._tested[b])), self._metrics[metric]
        pair = first * (2 * len(self._tested) - first - 1) // 2 + second - first - 1  # the upper triangle, row by row
        difference, low, high, p = (float(values[pair, column]) for values in self._family)
        largest, groups = self._largest[column], self._methods[a].centred.shape[1]
        low, high = np.clip((low, high), -largest, largest).tolist() if groups > 1 else (-largest, largest)
        return (
            Difference(difference, low, high, p)
            if self._tested[a] == first
            else Difference(-difference, -high, -low, p)
        )

    def leaders(self, metric: str, methods: Sequence[str]) -> list[str]:
        """Those of some methods that none of the others is significantly better than; empty if none is tested."""
        tested = [name for name in methods if name in self._tested and not np.isnan(self.mean(name, metric))]
        return [
            name
            for name in tested
            if not any(self.difference(name, other, metric).verdict == "worse" for other in tested if other != name)
        ]


def _recipe(metric: str) -> dict[Part, float]:
    recipe = parts(metric)
    if recipe is None:
        raise InputError(f"{metric}: not determined by the outcomes of single queries; choose {TESTABLE}")
    return recipe


def _by_group(
    runs: Sequence[tuple[str, QueryTable]], needed: Sequence[Part]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Query counts `[groups, parts]`, and sums of query outcomes `[runs, groups, parts]`, NaN where a run has none."""
    reference: dict[str, tuple[str, QueryTable]] = {}
    by_direction = [(method, _directions(table)) for method, table in runs]
    for method, directions in by_direction:
        for direction, table in directions.items():
            reference.setdefault(direction, (method, table))
    names = [np.asarray(table.get("group", table["image"])) for _, table in reference.values()]
    groups, owner = np.unique(np.concatenate(names), return_inverse=True)
    owners = dict(zip(reference, np.split(owner, np.cumsum([len(images) for images in names])[:-1]), strict=True))
    counts = np.zeros((len(groups), len(needed)))
    sums = np.full((len(runs), len(groups), len(needed)), np.nan)
    for (method, directions), run_sums in zip(by_direction, sums, strict=True):
        aligned = {name: _align(table, method, *reference[name]) for name, table in directions.items()}
        for name, table in aligned.items():
            first, expected = reference[name]
            if {"group"} <= {*table} & {*expected} and not np.array_equal(table["group"], expected["group"]):
                raise InputError(f"{first} and {method}: different groups of images; run the cells again")
        for place, part in enumerate(needed):
            column = "ap" if part.k is None else "rank"
            if part.direction in aligned and column in aligned[part.direction]:
                values, owner = aligned[part.direction][column], owners[part.direction]
                run_sums[:, place] = np.bincount(owner, values if part.k is None else values <= part.k, len(groups))
                counts[:, place] = np.bincount(owner, minlength=len(groups))
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
