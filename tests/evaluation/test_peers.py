"""The definitions of other projects' evaluation code, restated here, against ours.

Each restatement breaks ties as the original does: by position. Without ties the figures are equal; with ties, ours
bracket theirs. docs/protocols.md works the differences by hand.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import pytrec_eval
import torch
from evaluation import reference
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from ranx.metrics.r_precision import _r_precision
from torch import Tensor

from itmbench.encoders.embeddings import Embeddings
from itmbench.evaluation import caption_retrieval
from itmbench.evaluation.functional import average_precision, best_ranks, ranking_metrics
from itmbench.evaluation.places import truth_metrics

Row = Sequence[float]


def vsepp(scores: NDArray[Any], owner: NDArray[Any]) -> dict[str, float]:
    """``i2t`` and ``t2i`` of VSE++ (fartashf/vsepp, evaluation.py) and SCAN (kuanghuei/SCAN, evaluation.py).

    The reversed ascending sort puts the last of equal scores first. Ranks count from 0 until the end. There, caption j
    belongs to image j // 5; here, to its owner.
    """
    i2t = [
        min(best_first(row).index(text) for text in np.flatnonzero(owner == i).tolist()) for i, row in enumerate(scores)
    ]
    t2i = [best_first(column).index(image) for column, image in zip(scores.T, owner.tolist(), strict=True)]
    metrics: dict[str, float] = {}
    for side, ranks in (("i2t", np.array(i2t)), ("t2i", np.array(t2i))):
        metrics |= {f"{side}/R@{k}": 100.0 * np.sum(ranks < k) / len(ranks) for k in (1, 5, 10)}
        metrics |= {f"{side}/MedR": math.floor(np.median(ranks)) + 1, f"{side}/MeanR": ranks.mean() + 1}
    return metrics | {"rSum": sum(value for key, value in metrics.items() if "R@" in key)}


def best_first(scores: NDArray[Any]) -> list[int]:
    return np.argsort(scores, kind="stable")[::-1].tolist()


def calc_map_k(scores: Row, relevant: Row, k: int) -> float:
    """``calc_map_k`` of DCHMT (kalenforn/DCHMT) and MITH (DarrenZZhang/MITH), for one query; ``scores`` are -distances.

    The first min(k, R) relevant items count wherever they rank, over their number. A query without any adds 0.
    """
    order = sorted(range(len(scores)), key=lambda item: -scores[item])  # stable: the first of equal distances first
    ranks = [rank for rank, item in enumerate(order, 1) if relevant[item]][: min(k, sum(map(bool, relevant)))]
    return float(np.mean([count / rank for count, rank in enumerate(ranks, 1)])) if ranks else 0.0


def dcmh_map(scores: Row, relevant: Row, k: int) -> float:
    """``calc_map_k`` of DCMH's own code (jiangqy/DCMH-CVPR2017): the first k's relevant items, over their number."""
    order = sorted(range(len(scores)), key=lambda item: -scores[item])[:k]
    ranks = [rank for rank, item in enumerate(order, 1) if relevant[item]]
    return float(np.mean([count / rank for count, rank in enumerate(ranks, 1)])) if ranks else 0.0


def clip_benchmark(scores: Tensor, positive: Tensor, k: int) -> Tensor:
    """``recall_at_k`` of CLIP_benchmark (LAION-AI/CLIP_benchmark, zeroshot_retrieval.py): set recall of each query.

    What the benchmark reports as ``..._retrieval_recall@k`` is the share of queries in which it is above 0.
    """
    first = scores.topk(k, dim=1).indices
    return positive.gather(1, first).sum(1) / positive.sum(1)


def mteb_top(scores: Row, k: int) -> list[int]:
    """The first k items as mteb ranks them (mteb/_evaluators/retrieval_metrics.py): the first of equal scores first."""
    return sorted(range(len(scores)), key=lambda item: scores[item], reverse=True)[:k]


@st.composite
def captioned(draw: st.DrawFn, values: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Scores, of few values or all different, and shuffled owners; images own one to three captions."""
    images = draw(st.integers(2, 7))
    owner = draw(st.permutations([i for i in range(images) for _ in range(draw(st.integers(1, 3)))]))
    cells = images * len(owner)
    numbers = (
        st.permutations(range(cells))
        if not values
        else st.lists(st.integers(0, values), min_size=cells, max_size=cells)
    )
    return np.array(draw(numbers)).reshape(images, -1) / 64.0, np.array(owner)


def measured(scores: NDArray[Any], owner: NDArray[Any], ties: Any = "pessimistic") -> dict[str, float]:
    table = torch.from_numpy(scores).float()

    def scorer(images: Embeddings, texts: Embeddings) -> Tensor:
        return table[images.pooled[:, 0].long()][:, texts.pooled[:, 0].long()]

    images, texts = (torch.arange(float(n))[:, None] for n in scores.shape)
    metrics = caption_retrieval(images, texts, owner, scorer=scorer, ties=ties)
    return {key: 100 * value if "R@" in key else value for key, value in metrics.items()}


@settings(max_examples=60, deadline=None)
@given(captioned(0))
def test_vsepp_and_scan_agree_without_ties_for_any_number_and_order_of_captions(data: Any) -> None:
    scores, owner = data
    found = measured(scores, owner)
    assert found == pytest.approx(vsepp(scores, owner))
    by_image = np.argsort(owner, kind="stable")  # their layout
    assert found == pytest.approx(vsepp(scores[:, by_image], owner[by_image]))


@settings(max_examples=60, deadline=None)
@given(captioned(3))
def test_ties_of_vsepp_and_scan_lie_between_ours(data: Any) -> None:
    scores, owner = data
    lost, theirs, won = measured(scores, owner), vsepp(scores, owner), measured(scores, owner, "optimistic")
    for key, value in theirs.items():
        low, high = (won, lost) if key.endswith(("MedR", "MeanR")) else (lost, won)
        assert low[key] - 1e-9 <= value <= high[key] + 1e-9


def test_the_tie_in_the_docs() -> None:
    """A model that maps everything to one point: VSE++'s code finds the last caption and the last image first."""
    scores, owner = np.zeros((3, 6)), np.repeat(np.arange(3), 2)
    theirs = vsepp(scores, owner)
    assert (theirs["i2t/R@1"], theirs["t2i/R@1"]) == pytest.approx((100 / 3, 100 / 3))
    assert measured(scores, owner)["i2t/R@1"] == measured(scores, owner)["t2i/R@1"] == 0
    assert measured(scores, owner, "optimistic")["rSum"] == 600


@st.composite
def judged(draw: st.DrawFn, values: int) -> tuple[Tensor, Tensor]:
    """Scores and relevance of a few queries, some of which have nothing relevant."""
    queries, items = draw(st.integers(1, 4)), draw(st.integers(1, 12))
    cells = queries * items
    if values:
        scores = draw(st.lists(st.integers(-values, values), min_size=cells, max_size=cells))
    else:
        scores = [score for _ in range(queries) for score in draw(st.permutations(range(items)))]
    relevant = draw(st.lists(st.booleans(), min_size=cells, max_size=cells))
    return torch.tensor(scores).view(queries, -1) / 8, torch.tensor(relevant).view(queries, -1)


@settings(max_examples=60, deadline=None)
@given(judged(0), st.integers(1, 15))
def test_mith_dchmt_and_dcmh_agree_without_ties(data: tuple[Tensor, Tensor], k: int) -> None:
    scores, relevant = data
    rows = list(zip(scores.tolist(), relevant.tolist(), strict=True))
    for normaliser, definition in (("mith", calc_map_k), ("retrieved", dcmh_map)):
        found = average_precision(scores, relevant, k, normaliser)  # type: ignore[arg-type]
        assert found.tolist() == pytest.approx([definition(row, of, k) for row, of in rows])
    whole = [calc_map_k(row, of, len(row)) for row, of in rows]
    assert average_precision(scores, relevant).tolist() == pytest.approx(whole)


@settings(max_examples=60, deadline=None)
@given(judged(2), st.integers(1, 15))
def test_ties_of_hamming_distances_lie_between_ours(data: tuple[Tensor, Tensor], k: int) -> None:
    scores, relevant = data
    theirs = torch.tensor([calc_map_k(row, of, k) for row, of in zip(scores.tolist(), relevant.tolist(), strict=True)])
    lost, won = (average_precision(scores, relevant, k, "mith", ties) for ties in ("pessimistic", "optimistic"))
    assert bool((lost - 1e-6 <= theirs).all()) and bool((theirs <= won + 1e-6).all())


@settings(max_examples=60, deadline=None)
@given(judged(0), st.integers(1, 12))
def test_clip_benchmark_and_mteb_agree_without_ties(data: tuple[Tensor, Tensor], k: int) -> None:
    """Both report hit rates as R@K of captions here, and call set recall what the label protocol calls R@K."""
    scores, relevant = data
    relevant[:, 0] |= ~relevant.any(1)  # they divide by the number of relevant items
    k = min(k, scores.shape[1])  # topk needs as many
    ranks, found = best_ranks(scores, relevant), ranking_metrics(scores, relevant.int(), (k,))
    recall = clip_benchmark(scores, relevant, k)
    assert found[f"R@{k}"].tolist() == pytest.approx(recall.tolist())
    assert (ranks <= k).tolist() == (recall > 0).tolist()
    for query, (row, of) in enumerate(zip(scores.tolist(), relevant.tolist(), strict=True)):
        hits = [of[item] for item in mteb_top(row, k)]
        assert float(found[f"P@{k}"][query]) == pytest.approx(sum(hits) / k)  # mteb: precision_at_k
        assert float(found[f"R@{k}"][query]) == pytest.approx(sum(hits) / sum(of))  # recall_at_k
        assert bool(ranks[query] <= k) == any(hits)  # hit_rate_at_k (success_k of trec_eval)
        reciprocal = next((1 / rank for rank, hit in enumerate(hits, 1) if hit), 0.0)  # mrr_at_k
        assert (1 / float(ranks[query]) if ranks[query] <= k else 0.0) == pytest.approx(reciprocal)


@settings(max_examples=30, deadline=None)
@given(judged(0))
def test_trec_eval_and_ranx_agree_on_r_precision_and_map_at_r(data: tuple[Tensor, Tensor]) -> None:
    scores, relevant = data
    relevant[:, 0] |= ~relevant.any(1)
    pairs = relevant.nonzero()
    places = [reference.order(row, of, "pessimistic").index(item) + 1 for row, of, item in (
        (scores[query].tolist(), relevant[query].tolist(), item) for query, item in pairs.tolist()
    )]  # fmt: skip
    _, precisions, r_precisions = truth_metrics(pairs[:, 0], torch.tensor(places))
    for query, (row, of) in enumerate(zip(scores.tolist(), relevant.tolist(), strict=True)):
        number = sum(of)
        truth = {"q": {str(item): int(true) for item, true in enumerate(of)}}
        run = {"q": {str(item): score for item, score in enumerate(row)}}
        theirs = pytrec_eval.RelevanceEvaluator(truth, {"Rprec", f"map_cut.{number}"}).evaluate(run)["q"]
        assert float(r_precisions[query]) == pytest.approx(theirs["Rprec"])
        assert float(precisions[query]) == pytest.approx(theirs[f"map_cut_{number}"])
        best = np.array([(item, row[item]) for item in reference.order(row, of, "pessimistic")], dtype=float)
        judged_true = np.array([(item, 1) for item, true in enumerate(of) if true], dtype=float)
        assert float(r_precisions[query]) == pytest.approx(_r_precision(judged_true, best, 1))
