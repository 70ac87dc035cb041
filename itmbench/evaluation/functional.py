"""Metrics of one score matrix with one row per query. Scores are compared as float32; averages are float64.

Ties are broken against the model ("pessimistic", the default: a model that gives every item the same score retrieves
nothing) or in its favour ("optimistic", to show the spread). -0.0 equals 0.0. Every function raises InputError for
mismatched shapes and for NaN or infinite scores, naming the first affected query.

Without ties, other libraries agree. With ties, trec_eval (pytrec_eval) orders by document id and
`torchmetrics.retrieval` by whatever the sort leaves. AP@K is "all" in trec_eval (`map_cut_K`) and ranx, and "retrieved"
in torchmetrics, which since 1.7.4 treats items with a score of 0 or less as irrelevant.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from itmbench.errors import InputError
from itmbench.evaluation.parallel import tile_map
from itmbench.evaluation.ranking import Normaliser, Ranking, Ties, check_options, not_finite, rank_gallery, row_blocks


def best_ranks(scores: Tensor, relevance: Tensor, ties: Ties = "pessimistic") -> Tensor:
    """Rank of each query's best-ranked relevant item, from 1.

    A query without relevant items gets N + 1, one more than the last rank.

    Args:
        scores: `[Q, N]`, higher is better.
        relevance: bool `[Q, N]`.
        ties: "pessimistic" or "optimistic".

    Returns:
        int64 `[Q]`.

    Examples:
        >>> scores = torch.tensor([[0.9, 0.1, 0.9], [0.2, 0.3, 0.1]])
        >>> relevance = torch.tensor([[True, False, False], [False, False, False]])
        >>> best_ranks(scores, relevance)
        tensor([2, 4])
        >>> best_ranks(scores, relevance, ties="optimistic")
        tensor([1, 4])
    """
    check_options(ties)
    scores, relevance = _checked(scores, relevance.bool())
    ranks = []
    for rows in row_blocks(len(scores), scores.shape[1], scores.device):
        block, relevant = scores[rows], relevance[rows]
        finite = torch.isfinite(block).all(dim=1)
        if not bool(finite.all()):
            raise not_finite(f"query {rows.start + int(finite.int().argmin())}")
        best = block.masked_fill(~relevant, -torch.inf).amax(dim=1, keepdim=True)
        ahead = block >= best if ties == "pessimistic" else block > best
        ranks.append(1 + (ahead & ~relevant).sum(dim=1))
    return torch.cat(ranks)


def average_precision(
    scores: Tensor,
    relevance: Tensor,
    cutoff: int | None = None,
    normaliser: Normaliser = "retrieved",
    ties: Ties = "pessimistic",
) -> Tensor:
    """Average precision of each query: the mean of the precisions at the ranks of its relevant items.

    With R relevant items and a cutoff K, published code disagrees on the sum and on the divisor:

    - "retrieved": relevant items within the first K, divided by their number (DCMH's own code, DeepHash, torchmetrics);
    - "min": the same sum, divided by min(K, R) (PyTorch Geometric);
    - "all": the same sum, divided by R (trec_eval, ranx);
    - "mith": the first min(K, R) relevant items wherever ranked, divided by min(K, R) (MITH, DCHMT).

    Without a cutoff all four agree. If the divisor is 0, AP is 0.

    Args:
        scores: `[Q, N]`, higher is better.
        relevance: bool `[Q, N]`.
        cutoff: K, or None for the whole ranking.
        normaliser: one of the four above.
        ties: "pessimistic" or "optimistic".

    Returns:
        float64 `[Q]`.

    Examples:
        >>> scores = torch.tensor([[0.9, 0.8, 0.7, 0.6]])
        >>> relevance = torch.tensor([[True, False, True, True]])
        >>> names = ("retrieved", "min", "all", "mith")
        >>> [round(average_precision(scores, relevance, 2, name).item(), 4) for name in names]
        [1.0, 0.5, 0.3333, 0.8333]
    """
    check_options(ties, normaliser, () if cutoff is None else (cutoff,))
    return _measure(
        lambda ranking: {"AP": ranking.average_precision(cutoff, normaliser)}, scores, relevance.bool(), ties
    )["AP"]


def ranking_metrics(
    scores: Tensor,
    gains: Tensor,
    cutoffs: Sequence[int] = (50,),
    normaliser: Normaliser = "retrieved",
    ties: Ties = "pessimistic",
) -> dict[str, Tensor]:
    """All metrics of label retrieval, of each query.

    Args:
        scores: `[Q, N]`, higher is better.
        gains: number of labels shared with each item, whole numbers `[Q, N]`; an item is relevant above 0.
        cutoffs: the K of the metrics at K.
        normaliser: divisor of AP at K; see ``average_precision``.
        ties: among equal scores the smaller gain comes first ("pessimistic") or the larger one ("optimistic").

    Returns:
        float64 `[Q]` by key:

        - "AP" and "AP@50": see ``average_precision``;
        - "P@50": relevant items among the first K, divided by K, even if the gallery is smaller (as in trec_eval);
        - "R@50": relevant items among the first K, divided by all relevant items: set recall, unlike the R@K of caption
            retrieval, which is a hit rate (``best_ranks(...) <= k``);
        - "NDCG@50": normalised discounted cumulative gain (Järvelin and Kekäläinen, ACM TOIS 20(4), 2002) with linear
            gains (not 2^gain - 1), discounts 1 / log2(rank + 1), and the whole gallery for the ideal ranking;
        - "P@r0.0", "P@r0.1" ... "P@r1.0": best precision at any rank whose recall reaches the level (Manning, Raghavan
            and Schütze, Introduction to Information Retrieval, 2008, section 8.4);
        - "relevant": number of relevant items. Without any, all metrics are 0.

    Examples:
        >>> metrics = ranking_metrics(torch.tensor([[0.9, 0.8, 0.7]]), torch.tensor([[1, 0, 2]]), cutoffs=(2,))
        >>> {key: round(metrics[key].item(), 4) for key in ("P@2", "R@2", "NDCG@2", "P@r1.0")}
        {'P@2': 0.5, 'R@2': 0.5, 'NDCG@2': 0.3801, 'P@r1.0': 0.6667}
    """
    check_options(ties, normaliser, tuple(cutoffs))
    if bool((gains < 0).any()):
        raise InputError("gains: below 0; give the number of labels shared with each item")
    return _measure(lambda ranking: ranking.metrics(cutoffs, normaliser), scores, gains, ties)


def _measure(
    metrics: Callable[[Ranking], dict[str, Tensor]], scores: Tensor, gains: Tensor, ties: Ties
) -> dict[str, Tensor]:
    """Metrics of all queries, block by block to bound memory."""
    scores, gains = _checked(scores, gains)

    def block_metrics(rows: slice) -> dict[str, Tensor]:
        ranked = rank_gallery(scores[rows], gains[rows], ties)
        if not bool(ranked.finite.all()):
            raise not_finite(f"query {rows.start + int(ranked.finite.int().argmin())}")
        return metrics(ranked.whole)

    parts = list(tile_map(block_metrics, row_blocks(len(scores), scores.shape[1], scores.device), scores.device))
    return {key: torch.cat([part[key] for part in parts]) for key in parts[0]}


def _checked(scores: Tensor, gains: Tensor) -> tuple[Tensor, Tensor]:
    if scores.ndim != 2 or scores.shape != gains.shape or not scores.numel():
        raise InputError(
            f"scores {list(scores.shape)} and relevance {list(gains.shape)}: give two tables of the same shape, "
            "at least one query by one item"
        )
    return scores.detach().float(), gains
