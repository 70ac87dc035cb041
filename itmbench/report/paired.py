"""Methods compared query by query and seed by seed."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from itmbench.bench.store import PER_QUERY
from itmbench.errors import InputError

RESAMPLES = 10_000
RECALL = re.compile(r"(i2t|t2i)/R@(\d+)")
KNOWN = "i2t/R@K, t2i/R@K, rSum, hard_negative_accuracy, i2t/mAP, t2i/mAP or mAP"


class Difference(NamedTuple):
    """A difference of two means, and its confidence interval."""

    difference: float
    low: float
    high: float


class Part(NamedTuple):
    """A metric is a weighted sum of means over the queries of a direction: of hits at k, or of AP where k is None."""

    direction: str
    k: int | None
    weight: float


def difference(folders_a: Sequence[str | Path], folders_b: Sequence[str | Path], metric: str) -> Difference:
    """How much better one method is than another, with the 95 % interval of a paired bootstrap over images and seeds.

    Both methods answered the same queries. What is resampled (10,000 times, percentile method; Efron and Tibshirani,
    An Introduction to the Bootstrap, 1993) are the images, each with all its queries, captions and twins, the same for
    both methods; and for each method its seeds. So the interval tells the luck of these images and of these seeds; from
    few seeds, the second is told too small.

    Args:
        folders_a: folders of one method's results, one a seed, as in the column ``folder`` of ``load_results``.
        folders_b: folders of another's, of the same dataset and protocol.
        metric: "i2t/R@K" or "t2i/R@K" for any K, "rSum", "hard_negative_accuracy", "i2t/mAP", "t2i/mAP" or "mAP".

    Returns:
        The difference in the unit of the metric, its lower and its upper bound.

    Raises:
        InputError: the metric is none of these, a result does not hold it, or two results have different queries.
    """
    parts = _parts(metric)
    a, b = ([_values(Path(folder), parts, metric) for folder in folders] for folders in (folders_a, folders_b))
    first = a[0]
    for folder, values in zip([*folders_a, *folders_b], [*a, *b], strict=True):
        if not all(one.index.equals(other.index) for one, other in zip(first, values, strict=True)):
            raise InputError(f"{folders_a[0]} and {folder}: other queries; compare results of one dataset and protocol")
    images = pd.Index(np.unique(np.concatenate([of.index.get_level_values("image") for of in first])))
    rng = np.random.default_rng(0)
    drawn = rng.multinomial(len(images), np.full(len(images), 1 / len(images)), RESAMPLES).astype(np.float64)
    every = np.ones((1, len(images)))
    found, samples = 0.0, np.zeros(RESAMPLES)
    for sign, seeds in ((1, a), (-1, b)):
        share = rng.multinomial(len(seeds), np.full(len(seeds), 1 / len(seeds)), RESAMPLES) / len(seeds)
        found += sign * float(_metric(seeds, parts, images, every).mean())
        samples += sign * (share * _metric(seeds, parts, images, drawn)).sum(1)
    low, high = np.percentile(samples, (2.5, 97.5))
    return Difference(found, float(low), float(high))


def _parts(metric: str) -> list[Part]:
    if metric == "rSum":
        return [Part(direction, k, 100) for direction in ("i2t", "t2i") for k in (1, 5, 10)]
    if metric == "hard_negative_accuracy":
        return [Part("hard", 1, 1)]
    if metric in ("mAP", "i2t/mAP", "t2i/mAP"):
        directions = ("i2t", "t2i") if metric == "mAP" else (metric[:3],)
        return [Part(direction, None, 1 / len(directions)) for direction in directions]
    match = RECALL.fullmatch(metric)
    if match is None:
        raise InputError(f"{metric}: cannot be compared query by query; choose {KNOWN}")
    return [Part(match[1], int(match[2]), 1)]


def _values(folder: Path, parts: list[Part], metric: str) -> list[pd.Series]:
    """What every query adds to each part of the metric, by query and image."""
    path = folder / PER_QUERY
    if not path.exists():
        raise InputError(f"{path}: no such file; name the folder of a result")
    frame = pd.read_parquet(path)
    values = []
    for part in parts:
        column = "ap" if part.k is None else "rank"
        of = frame[frame["direction"] == part.direction]
        if not {column, "image"} <= set(of) or of.empty:
            raise InputError(
                f"{path}: nothing that {metric} needs; choose a metric of this result's protocol, and rerun what an "
                "older itmbench has measured"
            )
        found = of.set_index(["query", "image"])[column].sort_index()
        values.append(found if part.k is None else (found <= part.k).astype(float))
    return values


def _metric(
    seeds: list[list[pd.Series]], parts: list[Part], images: pd.Index, drawn: NDArray[Any]
) -> NDArray[np.float64]:
    """The metric of every seed with every image counted as often as drawn, `[draws, seeds]`."""
    result = np.zeros((len(drawn), len(seeds)))
    for at, part in enumerate(parts):
        owner = images.get_indexer(seeds[0][at].index.get_level_values("image"))
        queries = drawn @ np.bincount(owner, minlength=len(images))
        sums = np.stack([np.bincount(owner, of[at].to_numpy(), minlength=len(images)) for of in seeds], axis=1)
        result += part.weight * (drawn @ sums) / queries[:, None]
    return result
