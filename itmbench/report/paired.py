"""Methods compared query by query, image by image and seed by seed."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from itmbench.errors import InputError
from itmbench.store import PER_QUERY

LEVEL = 0.05
"""Of significance; intervals cover 1 minus this."""
RESAMPLES, PERMUTATIONS = 5_000, 10_000
BLOCK = 250
"""Random draws at a time: 5 MB of weights for 5,000 images."""
RECALL = re.compile(r"(i2t|t2i)/R@(\d+)")
KNOWN = "i2t/R@K, t2i/R@K, rSum, hard_negative_accuracy, i2t/mAP, t2i/mAP or mAP"


class Part(NamedTuple):
    """A mean over the queries of a direction: of hits at k, or of AP where k is None."""

    direction: str
    k: int | None


class Difference(NamedTuple):
    """A difference of two means, its confidence interval, and the p-value of the permutation test."""

    difference: float
    low: float
    high: float
    p: float

    def is_more_than_luck(self, adjusted: float) -> bool:
        """Whether neither the images nor the seeds explain it.

        Args:
            adjusted: the p-value, corrected for the other tests made beside this one.
        """
        return adjusted < LEVEL and not self.low <= 0 <= self.high


def parts(metric: str) -> dict[Part, float] | None:
    """The weighted sum of means that a metric is; None if it is no such sum, or its queries are not kept."""
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
    """P-values of several tests, corrected so that all together err as seldom as one; NaN is no test.

    Holm, A simple sequentially rejective multiple test procedure, Scandinavian Journal of Statistics 6 (1979).
    """
    values = np.asarray(p, np.float64)
    order = np.argsort(values)[: np.isfinite(values).sum()]  # NaN comes last
    adjusted = np.full_like(values, np.nan)
    adjusted[order] = np.minimum(np.maximum.accumulate(values[order] * np.arange(len(order), 0, -1)), 1)
    return adjusted


class PairedResults:
    """Results of several methods that answered the same queries, and the luck in their differences.

    What varies together is kept together: an image with all its queries, captions and near twins.

    - The interval of a difference is that of a paired bootstrap (percentile method; Efron and Tibshirani, An
      Introduction to the Bootstrap, 1993). Images are resampled, the same for all methods, and for each method its
      seeds. So it tells the luck of these images and of these seeds; from few seeds, the second is told too small, and
      from one seed not at all.
    - The p-value is that of a paired permutation test (sign flips; Good, Permutation, Parametric and Bootstrap Tests of
      Hypotheses, 2005). If two methods were equally good, what an image adds to the difference of their means over
      seeds could as well have the other sign. It tells the luck of the images, two-sided.

    Args:
        folders: method -> the folders of its results, one a seed, as in the column ``folder`` of ``load_results``.
        metrics: "i2t/R@K" or "t2i/R@K" for any K, "rSum", "hard_negative_accuracy", "i2t/mAP", "t2i/mAP" or "mAP".
        comparisons: how many tests will be corrected for; from many, more permutations are drawn, so that the smallest
            p-value can still be significant.

    Raises:
        InputError: a metric is none of these, a result has no queries by image, or two have different queries.
    """

    def __init__(
        self, folders: Mapping[str, Sequence[str | Path]], metrics: Sequence[str], comparisons: int = 1
    ) -> None:
        recipes = [_recipe(metric) for metric in metrics]
        needed = list(dict.fromkeys(part for recipe in recipes for part in recipe))
        weights = np.array([[recipe.get(part, 0) for recipe in recipes] for part in needed])
        counts, sums = _by_image([folder for of in folders.values() for folder in of], needed)
        self._metrics = {metric: place for place, metric in enumerate(metrics)}
        self._methods = {method: place for place, method in enumerate(folders)}
        seeds = [len(of) for of in folders.values()]
        owned = np.split(sums, np.cumsum(seeds)[:-1])
        shares = _contract(np.stack([of.mean(0) for of in owned]) / counts.sum(0), weights)
        self._means = shares.sum(1)
        # What all methods share changes no difference; without it, single precision is enough.
        self._shares = shares - np.nan_to_num(shares).mean(0)
        rng = np.random.default_rng(0)
        self._resampled = _bootstrap(rng, counts, sums, weights, seeds)
        self._flipped = _flip_signs(rng, self._shares, max(PERMUTATIONS, round(comparisons * 2.5 / LEVEL)))

    def difference(self, a: str, b: str, metric: str) -> Difference:
        """How much more of a metric one method has than another, in the unit of the metric; NaN where one has none."""
        at, other, what = self._methods[a], self._methods[b], self._metrics[metric]
        found = float(self._means[at, what] - self._means[other, what])
        if np.isnan(found):
            return Difference(found, found, found, found)
        samples = self._resampled[:, at, what] - self._resampled[:, other, what]
        low, high = np.nanpercentile(samples, (50 * LEVEL, 100 - 50 * LEVEL))
        flipped = np.abs(self._flipped[:, at, what] - self._flipped[:, other, what])
        rounding = 1e-5 * np.abs(self._shares[at, :, what] - self._shares[other, :, what]).sum()
        p = (1 + (flipped >= abs(found) - rounding).sum()) / (1 + len(flipped))
        return Difference(found, float(low), float(high), float(p))

    def leaders(self, metric: str, methods: Sequence[str]) -> list[str]:
        """Those of some methods that are not significantly worse than the best of them; none if none has the metric."""
        means = {name: self._means[self._methods[name], self._metrics[metric]] for name in methods}
        ranked = sorted((name for name in methods if not np.isnan(means[name])), key=lambda name: -means[name])
        behind = [self.difference(ranked[0], name, metric) for name in ranked[1:]]
        adjusted = holm([of.p for of in behind])
        worse = [of.is_more_than_luck(p) for of, p in zip(behind, adjusted, strict=True)]
        return ranked[:1] + [name for name, lost in zip(ranked[1:], worse, strict=True) if not lost]


def _recipe(metric: str) -> dict[Part, float]:
    recipe = parts(metric)
    if recipe is None:
        raise InputError(f"{metric}: cannot be compared query by query; choose {KNOWN}")
    return recipe


def _by_image(folders: Sequence[str | Path], needed: Sequence[Part]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Numbers of queries `[images, parts]`, and what they add up to in each folder `[folders, images, parts]`.

    What a folder does not hold is NaN.
    """
    frames = [_queries(folder) for folder in folders]
    first: dict[str, tuple[str | Path, pd.DataFrame]] = {}
    for folder, frame in zip(folders, frames, strict=True):
        for direction, of in frame.items():
            first.setdefault(direction, (folder, of))
    images = pd.Index(np.unique(np.concatenate([of["image"].to_numpy() for _, of in first.values()])))
    owners = {direction: images.get_indexer(of["image"]) for direction, (_, of) in first.items()}
    counts = np.zeros((len(images), len(needed)))
    sums = np.full((len(folders), len(images), len(needed)), np.nan)
    for folder, frame, sum_ in zip(folders, frames, sums, strict=True):
        for direction, of in frame.items():
            frame[direction] = _in_order(of, folder, *first[direction])
        for place, part in enumerate(needed):
            column = "ap" if part.k is None else "rank"
            if part.direction in frame and column in frame[part.direction]:
                values, owner = frame[part.direction][column].to_numpy(), owners[part.direction]
                sum_[:, place] = np.bincount(owner, values if part.k is None else values <= part.k, len(images))
                counts[:, place] = np.bincount(owner, minlength=len(images))
    return counts, sums


def _queries(folder: str | Path) -> dict[str, pd.DataFrame]:
    """The queries of a result, by direction."""
    path = Path(folder, PER_QUERY)
    if not path.exists():
        raise InputError(f"{path}: no such file; name the folder of a result")
    try:
        frame = pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}); run that cell again") from None
    if frame.empty or "image" not in frame:
        raise InputError(f"{path}: does not name the image of every query; run again what an older itmbench measured")
    return {str(direction): of.reset_index(drop=True) for direction, of in frame.groupby("direction")}


def _in_order(of: pd.DataFrame, folder: str | Path, first_folder: str | Path, first: pd.DataFrame) -> pd.DataFrame:
    """The queries of a direction in the order that the first folder has."""
    keys = ["query", "image"]
    if all(of[key].equals(first[key]) for key in keys):
        return of
    mine, its = of.sort_values(keys), first.sort_values(keys)
    if not mine[keys].reset_index(drop=True).equals(its[keys].reset_index(drop=True)):
        raise InputError(f"{first_folder} and {folder}: other queries; compare results of one dataset and protocol")
    return mine.set_axis(its.index).sort_index()


def _contract(values: NDArray[Any], weights: NDArray[Any]) -> NDArray[Any]:
    """`[…, parts]` x `[parts, metrics]`; a part that is NaN spoils only the metrics that need it."""
    return np.stack([values[..., of != 0] @ of[of != 0] for of in weights.T], -1)


def _bootstrap(
    rng: np.random.Generator,
    counts: NDArray[np.float64],
    sums: NDArray[np.float64],
    weights: NDArray[np.float64],
    seeds: Sequence[int],
) -> NDArray[np.float32]:
    """Every method's metrics with images and seeds resampled `[draws, methods, metrics]`."""
    images, (folders, _, kinds) = len(counts), sums.shape
    columns = np.concatenate([counts, sums.transpose(1, 0, 2).reshape(images, -1)], 1).astype(np.float32)
    found = np.empty((RESAMPLES, len(seeds), weights.shape[1]), np.float32)
    for start in range(0, RESAMPLES, BLOCK):
        rows = min(BLOCK, RESAMPLES - start)
        drawn = rng.integers(0, images, (rows, images)) + images * np.arange(rows)[:, None]
        often = np.bincount(drawn.ravel(), minlength=rows * images).reshape(rows, images).astype(np.float32)
        added = often @ columns
        with np.errstate(invalid="ignore"):  # a draw without any query of a direction has no mean of it
            means = added[:, kinds:].reshape(rows, folders, kinds) / added[:, None, :kinds]
        values = _contract(means, weights)
        for method, of in enumerate(np.split(values, np.cumsum(seeds)[:-1], axis=1)):
            share = rng.multinomial(seeds[method], np.full(seeds[method], 1 / seeds[method]), rows) / seeds[method]
            found[start : start + rows, method] = np.einsum("rs,rsm->rm", share, of)
    return found


def _flip_signs(rng: np.random.Generator, shares: NDArray[np.float64], draws: int) -> NDArray[np.float32]:
    """Sums over the images `[draws, methods, metrics]` of the shares `[methods, images, metrics]`, signs at random."""
    methods, images, metrics = shares.shape
    columns = shares.transpose(1, 0, 2).reshape(images, -1).astype(np.float32)
    found = np.empty((draws, methods * metrics), np.float32)
    for start in range(0, draws, BLOCK):
        rows = min(BLOCK, draws - start)
        signs = rng.integers(0, 2, (rows, images), np.int8).astype(np.float32)
        found[start : start + rows] = (2 * signs - 1) @ columns
    return found.reshape(draws, methods, metrics)
