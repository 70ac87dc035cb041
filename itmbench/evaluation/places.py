"""Places of all matches of a query, not only of its best one, as metrics of complete truth need them."""

import torch
from torch import Tensor

from itmbench.evaluation.ranking import Ties, sort_rows


class Places:
    """Count the scores that reach each match of each query.

    Args:
        queries: the query of every match, int64 `[M]`; the matches of a query are distinct items.
        values: score of every match `[M]`.
        n: number of queries; those without a match are skipped.
        ties: "pessimistic" or "optimistic".
    """

    def __init__(self, queries: Tensor, values: Tensor, n: int, ties: Ties) -> None:
        self._beyond = ties == "optimistic"  # equal scores do not count
        device = values.device
        by_value = values.argsort()
        self._order = by_value[queries[by_value].argsort(stable=True)]  # by query, then ascending by score
        sizes = queries.bincount(minlength=n)
        asked = sizes.nonzero().squeeze(1)
        self._row = torch.full((n,), -1, device=device)
        self._row[asked] = torch.arange(len(asked), device=device)
        self._sizes = sizes[asked, None]
        self._real = torch.arange(int(sizes.max()) if n else 0, device=device) < self._sizes
        self._values = torch.full(self._real.shape, torch.inf, device=device)
        self._values[self._real] = values[self._order]
        self.tallies = (torch.zeros(self._real.shape, dtype=torch.int64, device=device),)

    def ahead(self, queries: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
        """Count, for each match of some queries `[q]`, which of their scores `[q, items]` reach it."""
        rows = self._row[queries]
        asked = rows >= 0
        rows = rows[asked]
        ordered = sort_rows(scores[asked].contiguous())
        return rows, ordered.shape[1] - torch.searchsorted(ordered, self._values[rows], right=self._beyond)

    def add(self, rows: Tensor, counts: Tensor) -> None:
        """Add what ``ahead`` returned."""
        self.tallies[0][rows] += counts

    def places(self) -> Tensor:
        """Place of every match in the ranking of its query, from 1, int64 `[M]`."""
        matches = self._sizes - torch.searchsorted(self._values, self._values, right=self._beyond)
        later = self._sizes - torch.arange(self._real.shape[1], device=matches.device)
        result = torch.empty_like(self._order)
        result[self._order] = (self.tallies[0] - matches + later)[self._real]
        return result


def truth_metrics(queries: Tensor, places: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Rank of the best match, AP@R and R-Precision of every query that has a match, in ascending order of the queries.

    R is the number of matches of a query. R-Precision is their share of the first R places. AP@R adds up the precisions
    at the matches among the first R places and divides by R (Musgrave et al., "A Metric Learning Reality Check", ECCV
    2020; Chun et al., "ECCV Caption", ECCV 2022, and its package ``eccv_caption``).

    Args:
        queries: the query of every match, int64 `[M]`.
        places: place of every match in the ranking of its query, from 1 `[M]`.

    Returns:
        int64 `[Q]`, float64 `[Q]`, float64 `[Q]`.

    >>> truth_metrics(torch.tensor([0, 0, 0, 7]), torch.tensor([4, 1, 3, 2]))
    (tensor([1, 2]), tensor([0.5556, 0.0000], dtype=torch.float64), tensor([0.6667, 0.0000], dtype=torch.float64))
    """
    order = places.argsort()
    order = order[queries[order].argsort(stable=True)]
    places = places[order]
    _, query, sizes = queries[order].unique_consecutive(return_inverse=True, return_counts=True)
    first = sizes.cumsum(0) - sizes
    found = torch.arange(1, len(places) + 1, device=places.device) - first[query]
    inside = (places <= sizes[query]).double()
    precisions = torch.zeros(len(sizes), dtype=torch.float64, device=places.device)
    precisions.index_add_(0, query, inside * found / places)
    hits = torch.zeros_like(precisions).index_add_(0, query, inside)
    return places[first], precisions / sizes, hits / sizes
