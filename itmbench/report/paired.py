"""Two results compared query by query."""

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import bootstrap

from itmbench.bench.store import PER_QUERY
from itmbench.errors import InputError

METRIC = re.compile(r"(i2t|t2i)/(?:R@(\d+)|mAP)")


class Difference(NamedTuple):
    """A difference of two means, and its confidence interval."""

    difference: float
    low: float
    high: float


def difference(folder_a: str | Path, folder_b: str | Path, metric: str) -> Difference:
    """How much better the first of two results is, with the 95 % interval of a paired bootstrap over the queries.

    Both answered the same queries, so what is resampled (10,000 times, percentile method; Efron and Tibshirani, An
    Introduction to the Bootstrap, 1993) is each query's difference. The interval tells the luck of these queries, not
    that of the seed. Captions of one image count as independent queries, so an interval of t2i is rather too narrow.

    Args:
        folder_a: folder of a result, as in the column ``folder`` of ``load_results``.
        folder_b: folder of another of the same dataset and protocol.
        metric: "i2t/R@K" or "t2i/R@K" for any K, "i2t/mAP" or "t2i/mAP".

    Returns:
        The difference in the unit of the metric, its lower and its upper bound.

    Raises:
        InputError: the metric is none of these, a result does not hold it, or the two have different queries.
    """
    a, b = (_values(Path(folder), metric) for folder in (folder_a, folder_b))
    if not a.index.equals(b.index):
        raise InputError(f"{folder_a} and {folder_b}: other queries; compare results of one dataset and protocol")
    gains: NDArray[np.float64] = (a - b).to_numpy(np.float64)
    resampled = bootstrap((gains,), np.mean, n_resamples=10_000, batch=1_000, method="percentile", rng=0)
    low, high = resampled.confidence_interval
    return Difference(float(gains.mean()), float(low), float(high))


def _values(folder: Path, metric: str) -> pd.Series:
    """What every query adds to the metric, by query."""
    match = METRIC.fullmatch(metric)
    if match is None:
        raise InputError(f"{metric}: cannot be compared query by query; choose i2t/R@K, t2i/R@K, i2t/mAP or t2i/mAP")
    path = folder / PER_QUERY
    if not path.exists():
        raise InputError(f"{path}: no such file; name the folder of a result")
    frame = pd.read_parquet(path)
    direction, k = match.groups()
    column = "ap" if k is None else "rank"
    if column not in frame:
        raise InputError(f"{path}: no column {column}, which {metric} needs; choose a metric of this result's protocol")
    values = frame[frame["direction"] == direction].set_index("query")[column].sort_index()
    return values if k is None else (values <= int(k)).astype(float)
