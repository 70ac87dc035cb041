"""Label retrieval: an item is relevant to a query if they share at least one label."""

import math
from collections.abc import Iterator, Sequence
from itertools import chain
from operator import itemgetter

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from itmbench.encoders.embeddings import Items
from itmbench.errors import InputError
from itmbench.evaluation.parallel import tile_map
from itmbench.evaluation.ranking import Normaliser, Ties, check_options, rank_gallery, row_blocks
from itmbench.evaluation.ranks import by_rank
from itmbench.evaluation.scoring import (
    Name,
    Scorer,
    Vectors,
    as_embeddings,
    as_tensor,
    comparable,
    distinct,
    full_precision,
    score,
)
from itmbench.evaluation.shortlist import RescoredRows

# Scores in memory (64 MiB): a matrix product needs a hundred queries or so to amortise reading the gallery.
_SCORES = 1 << 24
# Queries of a block, which is what ranks share.
_QUERIES = 256


def label_retrieval(
    query_emb: Vectors,
    gallery_emb: Vectors,
    query_labels: NDArray | Tensor,
    gallery_labels: NDArray | Tensor,
    cutoffs: Sequence[int] = (50,),
    normaliser: Normaliser = "retrieved",
    scorer: Scorer | None = None,
    ties: Ties = "pessimistic",
) -> dict[str, float]:
    """Compute mean average precision and related metrics in one direction.

    Scores are float32; averages over the queries are float64. A query without relevant items counts as 0 and is
    reported. Memory grows with the gallery, not with queries x gallery. Everything runs on the device of the
    embeddings.

    Args:
        query_emb: tensor or array `[Q, D]`, or embeddings with the tokens that the scorer needs.
        gallery_emb: `[N, D]`, likewise.
        query_labels: multi-hot `[Q, C]`.
        gallery_labels: multi-hot `[N, C]`.
        cutoffs: the K of the metrics at K.
        normaliser: divisor of AP at K; see `itmbench.evaluation.functional.average_precision`.
        scorer: (query tile, gallery tile) -> scores `[bq, bg]`; None is the cosine of the pooled vectors.
        ties: "pessimistic" or "optimistic".

    Returns:
        "mAP"; for every K "mAP@50", "P@50", "R@50" (set recall) and "NDCG@50" (gain: number of shared labels);
        "P@r0.0" to "P@r1.0", the interpolated precision at 11 recall levels; "queries_without_relevant".

    Raises:
        InputError: lengths disagree, or a number is NaN or infinite.

    Examples:
        >>> query, gallery = torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]])
        >>> metrics = label_retrieval(query, gallery, torch.tensor([[1]]), torch.tensor([[1], [0], [1]]), cutoffs=(2,))
        >>> round(metrics["mAP"], 3), metrics["mAP@2"], metrics["P@2"], metrics["R@2"]
        (0.833, 1.0, 0.5, 0.5)
    """
    per_query = label_queries(
        as_embeddings(query_emb, lambda row: f"query {row}"),
        as_embeddings(gallery_emb, lambda row: f"gallery item {row}"),
        query_labels,
        gallery_labels,
        cutoffs,
        normaliser,
        scorer,
        ties,
        lambda row: f"query {row}",
    )
    return label_summary(per_query)


def label_queries(
    queries: Items,
    gallery: Items,
    query_labels: NDArray | Tensor,
    gallery_labels: NDArray | Tensor,
    cutoffs: Sequence[int],
    normaliser: Normaliser,
    scorer: Scorer | None,
    ties: Ties,
    name: Name,
    unseen: NDArray[np.bool_] | None = None,
    shortlist: int | None = None,
) -> dict[str, Tensor]:
    """Metrics of `label_retrieval` per query: one float64 `[Q]` per key, with "AP" in place of "mAP".

    Arguments as in `label_retrieval`, with embeddings from `as_embeddings`. ``name`` names a query row in errors.
    ``unseen`` `[N]` adds "unseen/AP": AP among the items where it is true, from the same scores, if it ever is.
    ``shortlist`` has a scorer score only so many distinct candidates of each query, the nearest by cosine.
    """
    check_options(ties, normaliser, tuple(cutoffs))
    sizes = len(queries), len(gallery)
    device = queries.pooled.device
    query_hot, gallery_hot = both_multi_hot(query_labels, gallery_labels, sizes, device)
    some = unseen is not None and bool(unseen.any()) and not bool(unseen.all())
    part = torch.from_numpy(unseen).to(device) if some else None
    short = None if shortlist is None or scorer is None else RescoredRows(gallery, scorer, shortlist)
    scored = (
        _Scores(queries, gallery, scorer, name) if short is None else _Scores(queries, short.candidates, None, name)
    )
    place = scored.place if short is None else short.place

    def blocks(share: Sequence[int]) -> Iterator[tuple[int, Tensor]]:
        for start, scores in scored.blocks(share):
            yield start, scores if short is None else short(scores[:, scored.place], queries, start, name)

    def measured(share: Sequence[int]) -> list[tuple[int, dict[str, Tensor]]]:
        parts: list[tuple[int, dict[str, Tensor]]] = []
        for start, scores in blocks(share):

            def measure(rows: slice, start: int = start, scores: Tensor = scores) -> tuple[int, dict[str, Tensor]]:
                block = scores[rows] if scores.shape[1] == len(place) else scores[rows][:, place]
                gains = query_hot[start + rows.start : start + rows.stop] @ gallery_hot.T
                ranked = rank_gallery(block, gains, ties, part)
                metrics = ranked.whole.metrics(cutoffs, normaliser)
                if ranked.part is not None:
                    metrics["unseen/AP"] = ranked.part.average_precision()
                return start + rows.start, {key: values.cpu() for key, values in metrics.items()}

            with full_precision(device):
                parts += tile_map(measure, row_blocks(len(scores), sizes[1], device), device)
        return parts

    shares = by_rank(measured, scored.count)
    ordered = [metrics for _, metrics in sorted(chain(*shares), key=itemgetter(0))]
    per_query = {key: torch.cat([metrics[key] for metrics in ordered]) for key in ordered[0]}
    if unseen is not None and bool(unseen.all()):
        per_query["unseen/AP"] = per_query["AP"]
    return per_query


def label_summary(per_query: dict[str, Tensor]) -> dict[str, float]:
    """Average the metrics of `label_queries` over the queries, and count the queries without relevant items."""
    metrics = {key.replace("AP", "mAP"): float(values.mean()) for key, values in per_query.items() if key != "relevant"}
    metrics["queries_without_relevant"] = float((per_query["relevant"] == 0).sum())
    return metrics


class _Scores:
    """Scores of all queries with the distinct items of a gallery, computed in blocks of queries.

    ``place`` `[N]` is the column of each item of the gallery; ``count`` is the number of blocks.
    """

    def __init__(self, queries: Items, gallery: Items, scorer: Scorer | None, name: Name) -> None:
        self._queries, searched, self._scorer, area = comparable(queries, gallery, scorer)
        self._items, self.place = distinct(searched)
        self._name = name
        self._step = max(1, min(len(queries), _QUERIES, math.isqrt(area), _SCORES // len(self._items)))
        self._width = max(1, area // self._step)
        self.count = math.ceil(len(queries) / self._step)

    def blocks(self, share: Sequence[int]) -> Iterator[tuple[int, Tensor]]:
        """Yield some of the numbered blocks: first query, and scores with all distinct items.

        The next block overwrites the scores.
        """
        device = self._queries.pooled.device
        table = torch.empty(self._step, len(self._items), device=device)
        for start in (number * self._step for number in share):
            block = self._queries[start : start + self._step]
            scores = table[: len(block)]
            for left in range(0, len(self._items), self._width):
                columns = slice(left, left + self._width)
                with full_precision(device):
                    scores[:, columns] = score(self._scorer, block, self._items[columns], _shifted(self._name, start))
            yield start, scores


def _shifted(name: Name, start: int) -> Name:
    return lambda row: name(start + row)


def both_multi_hot(
    query_labels: NDArray | Tensor, gallery_labels: NDArray | Tensor, sizes: tuple[int, int], device: torch.device
) -> tuple[Tensor, Tensor]:
    """The labels of queries and gallery, of these sizes, as ``multi_hot``; an InputError unless both have as many."""
    query_hot = multi_hot(query_labels, sizes[0], "query_labels", device)
    gallery_hot = multi_hot(gallery_labels, sizes[1], "gallery_labels", device)
    if query_hot.shape[1] != gallery_hot.shape[1]:
        raise InputError(
            f"query_labels have {query_hot.shape[1]} labels and gallery_labels {gallery_hot.shape[1]}; give as many"
        )
    return query_hot, gallery_hot


def multi_hot(labels: NDArray | Tensor, items: int, what: str, device: torch.device) -> Tensor:
    """0.0 and 1.0, float32 `[items, C]`, so that a matrix product counts shared labels.

    Raises:
        InputError: the labels are not `[items, C]`, or hold anything but 0 and 1.
    """
    hot = as_tensor(labels, what).to(device)
    if hot.ndim != 2 or len(hot) != items:
        raise InputError(f"{what} of shape {list(hot.shape)} for {items} items; give a multi-hot row for each")
    if not bool(((hot == 0) | (hot == 1)).all()):
        raise InputError(f"{what}: hold something other than 0 and 1; give a multi-hot row for each item")
    return hot.float()
