"""Expected metrics of a random ranking, the baseline of every result."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def hit_rate(relevant: NDArray[Any], items: int, k: int) -> float:
    """Expected R@K of random rankings of N items, the mean over queries of ``1 - C(N - R, K) / C(N, K)``.

    ``relevant`` is the number of relevant items of each query, R `[Q]`.
    >>> round(hit_rate(np.array([5]), items=1000, k=1), 6)
    0.005
    """
    drawn = np.arange(min(k, items))
    missed = (items - relevant[:, None] - drawn) / (items - drawn)
    return float(1 - missed.clip(min=0).prod(axis=1).mean())


def average_precision(relevant: NDArray[Any], items: int) -> float:
    """Expected mAP of random rankings; a query without relevant items counts as 0.

    Rank k holds a relevant item with probability R / N. Given that, ``1 + (k - 1) (R - 1) / (N - 1)`` of the first k
    items are relevant on average. So E[AP] = (H_N + (N - H_N) (R - 1) / (N - 1)) / N, with H_N the N-th harmonic
    number. Arguments as for ``hit_rate``.
    >>> average_precision(np.array([0, 3]), items=3)
    0.5
    """
    harmonic = float((1 / np.arange(1, items + 1)).sum())
    expected = (harmonic + (items - harmonic) * (relevant - 1) / max(1, items - 1)) / items
    return float(np.where(relevant > 0, expected, 0.0).mean())
