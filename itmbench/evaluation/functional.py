"""Metrics of one score matrix with one row per query. Scores are compared as float32; averages are float64.

Ties are broken against the model ("pessimistic", the default: a model that gives every item the same score retrieves
nothing) or in its favour ("optimistic", to show the spread). -0.0 equals 0.0. Every function raises InputError for
mismatched shapes and for NaN or infinite scores, naming the first affected query.

Without ties, other libraries agree. With ties, trec_eval (pytrec_eval) orders by document id and
`torchmetrics.retrieval` by whatever the sort leaves. AP@K is "all" in trec_eval (`map_cut_K`) and ranx, and "retrieved"
in torchmetrics, which since 1.7.4 treats items with a score of 0 or less as irrelevant.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from itmbench.errors import InputError
from itmbench.evaluation.ranking import Normaliser, Ranking, Ties, check_options, measure, not_finite, row_blocks


def best_ranks(scores: Tensor, relevance: Tensor, ties: Ties = "pessimistic") -> Tensor:
    """Rank of each query's best-ranked relevant item, from 1.

    A query without relevant items gets N + 1, one more than the last rank.

    Args:
        scores: `[Q, N]`, higher is better.
        relevance: bool `[Q, N]`.
        ties: "pessimistic" or "optimistic".

    Returns:
        int64 `[Q]`.

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

    - "retrieved": relevant items within the first K, divided by their number (DeepHash, torchmetrics);
    - "min": the same sum, divided by min(K, R) (PyTorch Geometric);
    - "all": the same sum, divided by R (trec_eval, ranx);
    - "dcmh": the first min(K, R) relevant items wherever ranked, divided by min(K, R) (DCHMT, MITH).

    Without a cutoff all four agree. If the divisor is 0, AP is 0.

    Args:
        scores: `[Q, N]`, higher is better.
        relevance: bool `[Q, N]`.
        cutoff: K, or None for the whole ranking.
        normaliser: one of the four above.
        ties: "pessimistic" or "optimistic".

    Returns:
        float64 `[Q]`.

    >>> scores = torch.tensor([[0.9, 0.8, 0.7, 0.6]])
    >>> relevance = torch.tensor([[True, False, True, True]])
    >>> [round(average_precision(scores, relevance, 2, n).item(), 4) for n in ("retrieved", "min", "all", "dcmh")]
    [1.0, 0.5, 0.3333, 0.8333]
    """
    check_options(ties, normaliser, () if cutoff is None else (cutoff,))
    return _of_ranking(lambda ranking: ranking.average_precision(cutoff, normaliser), scores, relevance.bool(), ties)


def precision_at(scores: Tensor, relevance: Tensor, k: int, ties: Ties = "pessimistic") -> Tensor:
    """Relevant items among the first k, divided by k, even if the gallery is smaller than k (as in trec_eval).

    Args:
        scores: `[Q, N]`, higher is better.
        relevance: bool `[Q, N]`.
        k: the cutoff.
        ties: "pessimistic" or "optimistic".

    Returns:
        float64 `[Q]`.

    >>> precision_at(torch.tensor([[0.9, 0.8, 0.7]]), torch.tensor([[True, False, True]]), 2).item()
    0.5
    """
    check_options(ties, cutoffs=(k,))
    return _of_ranking(lambda ranking: ranking.precision(k), scores, relevance.bool(), ties)


def recall_at(scores: Tensor, relevance: Tensor, k: int, ties: Ties = "pessimistic") -> Tensor:
    """Relevant items among the first k, divided by all relevant items; 0 if there are none.

    This is set recall. The R@K of caption retrieval is a hit rate: `best_ranks(...) <= k`.

    Args:
        scores: `[Q, N]`, higher is better.
        relevance: bool `[Q, N]`.
        k: the cutoff.
        ties: "pessimistic" or "optimistic".

    Returns:
        float64 `[Q]`.

    >>> recall_at(torch.tensor([[0.9, 0.8, 0.7]]), torch.tensor([[True, False, True]]), 1).item()
    0.5
    """
    check_options(ties, cutoffs=(k,))
    return _of_ranking(lambda ranking: ranking.recall(k), scores, relevance.bool(), ties)


def ndcg(scores: Tensor, gains: Tensor, k: int, ties: Ties = "pessimistic") -> Tensor:
    """Normalised discounted cumulative gain at k (Järvelin and Kekäläinen, ACM TOIS 20(4), 2002).

    The gain is linear (the number of shared labels, not 2^gain - 1). The discount of rank r is 1 / log2(r + 1). The
    ideal ranking is the whole gallery by descending gain, cut at k. A query without any gain scores 0. Among equal
    scores the smaller gain comes first ("pessimistic") or the larger one ("optimistic").

    Args:
        scores: `[Q, N]`, higher is better.
        gains: whole numbers >= 0 `[Q, N]`.
        k: the cutoff.
        ties: "pessimistic" or "optimistic".

    Returns:
        float64 `[Q]`.

    >>> round(ndcg(torch.tensor([[0.9, 0.8, 0.7]]), torch.tensor([[1, 0, 2]]), k=2).item(), 4)
    0.3801
    """
    check_options(ties, cutoffs=(k,))
    if bool((gains < 0).any()):
        raise InputError("gains: below 0; give the number of labels shared with each item")
    return _of_ranking(lambda ranking: ranking.ndcg(k), scores, gains, ties)


def interpolated_precision(scores: Tensor, relevance: Tensor, ties: Ties = "pessimistic") -> Tensor:
    """Precision at the 11 recall levels 0.0, 0.1, ..., 1.0.

    The value at a level is the best precision at any rank whose recall reaches the level (Manning, Raghavan and
    Schütze, Introduction to Information Retrieval, 2008, section 8.4). A query without relevant items has 0 at every
    level.

    Args:
        scores: `[Q, N]`, higher is better.
        relevance: bool `[Q, N]`.
        ties: "pessimistic" or "optimistic".

    Returns:
        float64 `[Q, 11]`.

    >>> scores, relevance = torch.tensor([[0.9, 0.8, 0.7, 0.6]]), torch.tensor([[True, False, True, False]])
    >>> [round(p, 2) for p in interpolated_precision(scores, relevance)[0].tolist()]
    [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.67, 0.67, 0.67, 0.67, 0.67]
    """
    check_options(ties)
    return _of_ranking(Ranking.interpolated_precision, scores, relevance.bool(), ties)


def _of_ranking(metric: Callable[[Ranking], Tensor], scores: Tensor, gains: Tensor, ties: Ties) -> Tensor:
    scores, gains = _checked(scores, gains)
    return measure(metric, scores, gains, ties, lambda row: f"query {row}")


def _checked(scores: Tensor, gains: Tensor) -> tuple[Tensor, Tensor]:
    if scores.ndim != 2 or scores.shape != gains.shape or not scores.numel():
        raise InputError(
            f"scores {list(scores.shape)} and relevance {list(gains.shape)}: give two tables of the same shape, "
            "at least one query by one item"
        )
    return scores.detach().float(), gains
