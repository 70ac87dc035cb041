"""Caption retrieval: metrics from the ranks of own pairs, and from the places of all true pairs."""

from collections.abc import Sequence

import numpy as np

from itmbench.evaluation import chance
from itmbench.evaluation.grid import Sides
from itmbench.evaluation.places import truth_metrics
from itmbench.evaluation.stage import EvaluatedStage

SIDES = ("i2t", "t2i")
RSUM = (1, 5, 10)
"""The K whose recalls rSum adds up, whatever other K are asked for."""


def summary(ranks: Sides, ks: Sequence[int]) -> dict[str, float]:
    """The metrics of `itmbench.evaluation.caption_retrieval`, from the ranks `[Ni]` and `[Nt]` of both directions."""
    metrics = recalls(ranks, ks)
    for side, of_side in zip(SIDES, ranks, strict=True):
        metrics[f"{side}/MedR"] = float(of_side.double().quantile(0.5).floor())
        metrics[f"{side}/MeanR"] = float(of_side.double().mean())
    return metrics


def recalls(ranks: Sides, ks: Sequence[int]) -> dict[str, float]:
    """R@K of both directions, and rSum."""
    metrics = {
        f"{side}/R@{k}": float((of_side <= k).double().mean())
        for side, of_side in zip(SIDES, ranks, strict=True)
        for k in ks
    }
    return metrics | {"rSum": r_sum(metrics)}


def r_sum(metrics: dict[str, float]) -> float:
    """100 times the sum of the six recalls."""
    return 100 * sum(metrics[f"{side}/R@{k}"] for side in SIDES for k in RSUM)


def expected_by_chance(here: EvaluatedStage, ks: Sequence[int]) -> dict[str, float]:
    """Expected recalls of a random ranking."""
    texts_of_image = np.bincount(here.owner, minlength=len(here.image_ids))
    metrics = {}
    for k in ks:
        metrics[f"i2t/R@{k}"] = chance.hit_rate(texts_of_image, len(here.owner), k)
        metrics[f"t2i/R@{k}"] = chance.hit_rate(np.ones_like(here.owner), len(here.image_ids), k)
    return metrics | {"rSum": r_sum(metrics)}


def complete_truth(matches: Sides, places: Sides, ks: Sequence[int]) -> dict[str, float]:
    """Recalls of the first match, mAP@R and R-Precision in both directions, and the means of the last two.

    ``matches`` are the images and texts, int64 `[M, 2]`, of all true pairs of the queries of each direction, and
    ``places`` their places `[M]` in the rankings.
    """
    ranks, precisions, r_precisions = zip(
        *(truth_metrics(pairs[:, side].cpu(), places[side].cpu()) for side, pairs in enumerate(matches)), strict=True
    )
    metrics = recalls(ranks, ks)
    for name, values in (("mAP@R", precisions), ("R-Precision", r_precisions)):
        means = [float(of_side.mean()) for of_side in values]
        metrics |= {f"{side}/{name}": mean for side, mean in zip(SIDES, means, strict=True)} | {name: sum(means) / 2}
    return metrics
