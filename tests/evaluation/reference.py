"""Retrieval metrics written straight from their definitions, in plain loops, to compare with."""

import math
from collections.abc import Sequence

Row = Sequence[float]


def order(scores: Row, gains: Row, ties: str) -> list[int]:
    sign = 1 if ties == "pessimistic" else -1
    return sorted(range(len(scores)), key=lambda item: (-scores[item], sign * gains[item]))


def best_rank(scores: Row, relevant: Row, ties: str) -> int:
    ranked = order(scores, relevant, ties)
    return next((rank for rank, item in enumerate(ranked, 1) if relevant[item]), len(scores) + 1)


def average_precision(scores: Row, relevant: Row, cutoff: int | None, normaliser: str, ties: str) -> float:
    ranks = [rank for rank, item in enumerate(order(scores, relevant, ties), 1) if relevant[item]]
    precisions = [found / rank for found, rank in enumerate(ranks, 1)]
    k = len(scores) if cutoff is None else cutoff
    kept = [p for p, rank in zip(precisions, ranks, strict=True) if rank <= k]
    if normaliser == "mith":
        kept = precisions[: min(k, len(ranks))]
    divisor = {"retrieved": len(kept), "min": min(k, len(ranks)), "all": len(ranks), "mith": len(kept)}[normaliser]
    return math.fsum(kept) / divisor if divisor else 0.0


def precision(scores: Row, relevant: Row, k: int, ties: str) -> float:
    return sum(bool(relevant[item]) for item in order(scores, relevant, ties)[:k]) / k


def recall(scores: Row, relevant: Row, k: int, ties: str) -> float:
    total = sum(map(bool, relevant))
    return sum(bool(relevant[item]) for item in order(scores, relevant, ties)[:k]) / total if total else 0.0


def ndcg(scores: Row, gains: Row, k: int, ties: str) -> float:
    def discounted(ranked: Sequence[float]) -> float:
        return math.fsum(gain / math.log2(rank + 1) for rank, gain in enumerate(ranked[:k], 1))

    ideal = discounted(sorted(gains, reverse=True))
    return discounted([gains[item] for item in order(scores, gains, ties)]) / ideal if ideal else 0.0


def interpolated(scores: Row, relevant: Row, ties: str) -> list[float]:
    ranks = [rank for rank, item in enumerate(order(scores, relevant, ties), 1) if relevant[item]]
    return [
        max((n / rank for n, rank in enumerate(ranks, 1) if 10 * n >= level * len(ranks)), default=0.0)
        for level in range(11)
    ]


def r_precision(scores: Row, relevant: Row, ties: str) -> float:
    """The share of the first R items that is relevant, with R relevant items."""
    ranked = order(scores, relevant, ties)
    number = sum(map(bool, relevant))
    return sum(bool(relevant[item]) for item in ranked[:number]) / number


def map_at_r(scores: Row, relevant: Row, ties: str) -> float:
    """As ``compute_eccv_metrics`` of eccv_caption: for r = 1..R, the precision of the first r if item r is relevant."""
    ranked = order(scores, relevant, ties)
    number = sum(map(bool, relevant))
    precisions = [
        sum(bool(relevant[item]) for item in ranked[:r]) / r if relevant[ranked[r - 1]] else 0.0
        for r in range(1, number + 1)
    ]
    return math.fsum(precisions) / number
