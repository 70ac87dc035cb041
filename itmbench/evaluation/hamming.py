"""Label retrieval with binary codes: exact ranking by Hamming distance, from packed bits and without a sort.

A code of K bits has K + 1 distances, so all metrics follow from two numbers per query and distance: the irrelevant and
the relevant items there.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from itmbench.errors import InputError
from itmbench.evaluation.label import both_multi_hot, label_summary
from itmbench.evaluation.parallel import tile_map
from itmbench.evaluation.ranking import Normaliser, Ties, check_options
from itmbench.evaluation.scoring import Vectors, as_embeddings

Words = list[NDArray[np.unsignedinteger]]
"""Bits of items, packed into columns `[N]` of at most 64 bits each."""

# Queries of a block: its histograms stay small, and the codes of the gallery are read from the cache.
_QUERIES = 256


def hamming_retrieval(
    query_codes: Vectors,
    gallery_codes: Vectors,
    query_labels: NDArray | Tensor,
    gallery_labels: NDArray | Tensor,
    cutoffs: Sequence[int] = (50,),
    normaliser: Normaliser = "retrieved",
    ties: Ties = "pessimistic",
) -> dict[str, float]:
    """Compute mean average precision and related metrics of binary codes in one direction.

    Items are ranked by Hamming distance; equal distances are ties. A query without relevant items counts as 0 and is
    reported. Memory grows with the gallery, not with queries x gallery. The CPU computes everything.

    Args:
        query_codes: tensor or array `[Q, K]`; a bit is 1 where the number is above 0.
        gallery_codes: `[N, K]`, likewise.
        query_labels: multi-hot `[Q, C]`.
        gallery_labels: multi-hot `[N, C]`.
        cutoffs: the K of the metrics at K.
        normaliser: divisor of AP at K; see `itmbench.evaluation.functional.average_precision`.
        ties: "pessimistic" or "optimistic".

    Returns:
        The metrics of `itmbench.evaluation.label_retrieval` but NDCG, and the precision and recall of all items within
        a Hamming distance, "P@h0" to "P@hK" and "R@h0" to "R@hK", as DCMH (Jiang and Li, CVPR 2017) draws
        precision-recall curves; where nothing is within the distance, the precision is 0. "optimistic/mAP" is the mAP
        with optimistic ties: any other way to break them, such as the sort of published code, gives a value between.

    Raises:
        InputError: lengths disagree, or a number is NaN or infinite.

    Examples:
        >>> query, gallery = torch.tensor([[1, 1, -1]]), torch.tensor([[1, 1, -1], [1, 1, 1], [-1, 1, -1], [-1, -1, 1]])
        >>> metrics = hamming_retrieval(query, gallery, torch.tensor([[1]]), torch.tensor([[1], [0], [1], [0]]))
        >>> round(metrics["mAP"], 3), metrics["P@h0"], round(metrics["P@h1"], 3), metrics["R@h1"]
        (0.833, 1.0, 0.667, 1.0)
    """
    queries = as_embeddings(query_codes, lambda row: f"query {row}").pooled
    gallery = as_embeddings(gallery_codes, lambda row: f"gallery item {row}").pooled
    return label_summary(hamming_queries(queries, gallery, query_labels, gallery_labels, cutoffs, normaliser, ties))


def hamming_queries(
    queries: Tensor,
    gallery: Tensor,
    query_labels: NDArray | Tensor,
    gallery_labels: NDArray | Tensor,
    cutoffs: Sequence[int],
    normaliser: Normaliser,
    ties: Ties,
    unseen: NDArray[np.bool_] | None = None,
) -> dict[str, Tensor]:
    """Metrics of `hamming_retrieval` per query: one float64 `[Q]` per key, with "AP" in place of "mAP".

    "optimistic/AP" is AP with optimistic ties. ``unseen`` `[N]` adds "unseen/AP": AP among the items where it is true,
    if it ever is.
    """
    check_options(ties, normaliser, tuple(cutoffs))
    if queries.shape[1] != gallery.shape[1]:
        raise InputError(f"codes of {queries.shape[1]} and {gallery.shape[1]} bits; give both the same length")
    cpu = torch.device("cpu")
    query_hot, gallery_hot = both_multi_hot(query_labels, gallery_labels, (len(queries), len(gallery)), cpu)
    new = np.zeros(len(gallery), dtype=bool) if unseen is None else unseen
    # Unseen items last, so that each part of the gallery is one stretch of memory.
    order = torch.from_numpy(np.argsort(new, kind="stable"))
    parts = [part for part in (slice(0, int((~new).sum())), slice(int((~new).sum()), None)) if len(new[part])]
    asked, found = _packed(queries), _packed(gallery[order.to(gallery.device)])
    wanted, held = _packed(query_hot), _packed(gallery_hot[order])
    harmonic = torch.cat([torch.zeros(1), (1 / torch.arange(1, len(gallery) + 1, dtype=torch.float64)).cumsum(0)])

    def measure(rows: range) -> dict[str, Tensor]:
        bits = queries.shape[1]
        counts = torch.stack([_histograms(row, asked, found, wanted, held, parts, bits) for row in rows])
        metrics = Distances(counts.sum(1), ties, harmonic).metrics(cutoffs, normaliser)
        metrics["optimistic/AP"] = Distances(counts.sum(1), "optimistic", harmonic).average_precision()
        if not new.any():
            return metrics
        return metrics | {"unseen/AP": Distances(counts[:, -1], ties, harmonic).average_precision()}

    blocks = [range(start, min(start + _QUERIES, len(queries))) for start in range(0, len(queries), _QUERIES)]
    measured = list(tile_map(measure, blocks, cpu))
    return {key: torch.cat([block[key] for block in measured]) for key in measured[0]}


class Distances:
    """Metrics of each query from the numbers of items at each distance.

    Args:
        counts: irrelevant and relevant items at the distances 0 to K, int64 `[Q, K + 1, 2]`.
        ties: "pessimistic" or "optimistic".
        harmonic: harmonic numbers 0 to N, float64.
    """

    def __init__(self, counts: Tensor, ties: Ties, harmonic: Tensor) -> None:
        irrelevant, self._here = counts.unbind(2)
        self._upto, self._all_upto = self._here.cumsum(1), counts.sum(2).cumsum(1)
        self._before = self._upto - self._here
        # The j-th relevant item at a distance has rank _ahead + j.
        self._ahead = self._all_upto - counts.sum(2) + (irrelevant if ties == "pessimistic" else 0)
        self._relevant = self._upto[:, -1:]
        self._harmonic = harmonic

    def average_precision(self, cutoff: int | None = None, normaliser: Normaliser = "retrieved") -> Tensor:
        """Float64 `[Q]`; see `itmbench.evaluation.functional.average_precision`."""
        if cutoff is None:
            return _ratio(self._precision_sum(self._here), self._relevant)
        kept = self._relevant.clamp(max=cutoff)
        if normaliser == "mith":
            return _ratio(self._precision_sum((kept - self._before).clamp(min=0).minimum(self._here)), kept)
        counted = self._within(cutoff)
        divisor = {"retrieved": counted.sum(1, keepdim=True), "min": kept, "all": self._relevant}[normaliser]
        return _ratio(self._precision_sum(counted), divisor)

    def metrics(self, cutoffs: Sequence[int], normaliser: Normaliser) -> dict[str, Tensor]:
        """Float64 `[Q]` by key; see `hamming_retrieval`."""
        metrics = {"AP": self.average_precision(), "relevant": self._relevant.squeeze(1).double()}
        for k in cutoffs:
            found = self._within(k).sum(1, keepdim=True)
            metrics[f"AP@{k}"] = self.average_precision(k, normaliser)
            metrics[f"P@{k}"], metrics[f"R@{k}"] = found.squeeze(1).double() / k, _ratio(found, self._relevant)
        levels = self._interpolated_precision()
        metrics |= {f"P@r{level / 10}": levels[:, level] for level in range(11)}
        for name, total in (("P", self._all_upto), ("R", self._relevant)):
            within = _ratio(self._upto, total)
            metrics |= {f"{name}@h{radius}": within[:, radius] for radius in range(within.shape[1])}
        return metrics

    def _within(self, k: int) -> Tensor:
        """Number of relevant items of each distance among the first ``k``, int64 `[Q, K + 1]`."""
        return (k - self._ahead).clamp(min=0).minimum(self._here)

    def _precision_sum(self, counted: Tensor) -> Tensor:
        """Sum of found / rank over the first ``counted`` relevant items of each distance, float64 `[Q, 1]`.

        At one distance it is the sum of (b + j) / (a + j) = 1 - (a - b) / (a + j) for j = 1 to m, with b relevant items
        before and a items ahead: m - (a - b) (H[a + m] - H[a]), where H are harmonic numbers.
        """
        inverse_ranks = self._harmonic[self._ahead + counted] - self._harmonic[self._ahead]
        return (counted - (self._ahead - self._before) * inverse_ranks).sum(1, keepdim=True)

    def _interpolated_precision(self) -> Tensor:
        """Best precision from each of the recall levels 0.0, 0.1, ..., 1.0 on, float64 `[Q, 11]`.

        Precision rises from one relevant item at a distance to the next, so the last one has the best.
        """
        last = torch.where(self._here > 0, self._upto.double() / (self._ahead + self._here), 0.0)
        best = last.flip(1).cummax(1).values.flip(1)
        needed = ((torch.arange(11) * self._relevant + 9) // 10).clamp(min=1)
        reached = torch.searchsorted(self._upto, needed).clamp(max=best.shape[1] - 1)
        return best.gather(1, reached)


def _histograms(
    row: int, asked: Words, found: Words, wanted: Words, held: Words, parts: list[slice], bits: int
) -> Tensor:
    """Irrelevant and relevant items of each part of the gallery at each distance of a query, `[parts, K + 1, 2]`."""
    cells: NDArray[Any] = np.zeros(len(found[0]), np.uint8 if bits <= 127 else np.int16)
    for query, words in zip(asked, found, strict=True):
        cells += np.bitwise_count(words ^ query[row])
    cells += cells  # even cells hold irrelevant items, odd ones relevant items
    relevant = np.zeros(len(found[0]), dtype=bool)
    for query, words in zip(wanted, held, strict=True):
        relevant |= (words & query[row]) != 0
    cells += relevant
    counts = [torch.bincount(torch.from_numpy(cells[part]), minlength=2 * bits + 2) for part in parts]
    return torch.stack(counts).view(len(parts), bits + 1, 2)


def _packed(table: Tensor) -> Words:
    """The signs of `[N, K]`, 1 where above 0, in the fewest columns of 8, 16, 32 or 64 bits."""
    octets = np.packbits((table > 0).cpu().numpy(), axis=1)
    size = next((size for size in (1, 2, 4, 8) if octets.shape[1] <= size), 8)
    octets = np.pad(octets, ((0, 0), (0, -octets.shape[1] % size)))
    return list(np.ascontiguousarray(octets).view(f"u{size}").T.copy())


def _ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    """Quotient of whole numbers, float64, without a last axis of 1; 0 if the denominator is 0."""
    return (numerator.double() / denominator.clamp(min=1)).masked_fill_(denominator == 0, 0.0).squeeze(1)
