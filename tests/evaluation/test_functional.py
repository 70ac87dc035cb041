import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import pytrec_eval
import torch
from evaluation import reference
from hypothesis import given, settings
from hypothesis import strategies as st
from ranx.metrics.average_precision import _average_precision
from ranx.metrics.ndcg import _ndcg
from torch import Tensor
from torchmetrics.retrieval import RetrievalMAP, RetrievalNormalizedDCG, RetrievalPrecision, RetrievalRecall

from itmbench.errors import InputError
from itmbench.evaluation import functional, ranking

TIES: tuple[ranking.Ties, ...] = ("pessimistic", "optimistic")
NORMALISERS: tuple[ranking.Normaliser, ...] = ("retrieved", "min", "all", "mith")
METRICS: list[Callable[..., Any]] = [functional.best_ranks, functional.average_precision, functional.ranking_metrics]


@st.composite
def tied_tables(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    """Scores from a handful of values, zeros of both signs among them, and gains 0..3."""
    queries, gallery = draw(st.integers(1, 4)), draw(st.integers(1, 25))
    cells = queries * gallery
    values = st.sampled_from([-2.5, -1.0, -1e-38, -0.0, 0.0, 1e-45, 0.5, 3e38])
    scores = draw(st.lists(values, min_size=cells, max_size=cells))
    gains = draw(st.lists(st.integers(0, 3), min_size=cells, max_size=cells))
    return torch.tensor(scores).view(queries, -1), torch.tensor(gains).view(queries, -1)


def expect(found: Tensor, expected: list[Any]) -> None:
    torch.testing.assert_close(found, torch.tensor(expected, dtype=found.dtype), rtol=1e-12, atol=1e-12)


@settings(max_examples=60, deadline=None)
@given(tied_tables(), st.integers(1, 30), st.sampled_from(TIES))
def test_metrics_equal_their_definitions_under_heavy_ties(table: tuple[Tensor, Tensor], k: int, ties: Any) -> None:
    scores, gains = table
    relevance = gains > 0
    rows = list(zip(scores.tolist(), relevance.tolist(), gains.tolist(), strict=True))
    expect(functional.best_ranks(scores, relevance, ties), [reference.best_rank(s, r, ties) for s, r, _ in rows])
    found = functional.ranking_metrics(scores, gains, (k,), "min", ties)
    expect(found["AP"], [reference.average_precision(s, r, None, "min", ties) for s, r, _ in rows])
    expect(found[f"AP@{k}"], [reference.average_precision(s, r, k, "min", ties) for s, r, _ in rows])
    expect(found[f"P@{k}"], [reference.precision(s, r, k, ties) for s, r, _ in rows])
    expect(found[f"R@{k}"], [reference.recall(s, r, k, ties) for s, r, _ in rows])
    expect(found[f"NDCG@{k}"], [reference.ndcg(s, g, k, ties) for s, _, g in rows])
    expect(found["relevant"], [sum(r) for _, r, _ in rows])
    levels = torch.stack([found[f"P@r{level / 10}"] for level in range(11)], dim=1)
    expect(levels, [reference.interpolated(s, r, ties) for s, r, _ in rows])
    for normaliser in NORMALISERS:
        for cutoff in (None, k):
            precisions = functional.average_precision(scores, relevance, cutoff, normaliser, ties)
            expect(precisions, [reference.average_precision(s, r, cutoff, normaliser, ties) for s, r, _ in rows])


def test_types_of_results() -> None:
    scores, relevance = torch.rand(3, 5), torch.ones(3, 5, dtype=torch.bool)
    assert functional.best_ranks(scores, relevance).dtype == torch.int64
    assert functional.average_precision(scores.half(), relevance).dtype == torch.float64


@pytest.mark.parametrize("bad", [math.nan, -math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("metric", METRICS)
def test_not_finite_names_the_query(monkeypatch: pytest.MonkeyPatch, metric: Callable[..., Any], bad: float) -> None:
    monkeypatch.setitem(ranking._BLOCK, "cpu", 40)  # 2 queries a block: the name must not be that within the block
    scores = torch.rand(9, 20)  # close enough for short keys, which must not hide infinities
    scores[5, 11] = bad
    with pytest.raises(InputError, match="query 5: NaN or infinite"):
        metric(scores, scores > 0)


def test_results_do_not_depend_on_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    scores, gains = torch.randn(23, 50).round(decimals=1), torch.randint(0, 3, (23, 50))
    whole = functional.ranking_metrics(scores, gains, (10,))
    monkeypatch.setitem(ranking._BLOCK, "cpu", 200)
    parts = functional.ranking_metrics(scores, gains, (10,))
    assert all(torch.equal(values, parts[key]) for key, values in whole.items())


@pytest.mark.parametrize("ties", TIES)
@pytest.mark.parametrize(
    "values", [(1.9999999, -1.9999999, 0.5, 0.50000006, 1e-45, -1e-45, 0.0, -0.0), (3e38, 1e38, 1.0000001e38, 0.0)]
)
def test_short_keys_order_as_long_ones(
    values: tuple[float, ...], ties: ranking.Ties, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = torch.tensor(values)[torch.randint(len(values), (40, 30))]
    relevance = torch.rand(40, 30) < 0.3
    with monkeypatch.context() as patch:
        patch.setattr(ranking, "_keys", None)
        found = ranking.rank_gallery(scores, relevance, ties).whole.gains
    scores = torch.cat([scores, torch.tensor([[3e38, -3e38] * 15])])  # too far apart for short keys
    long = ranking.rank_gallery(scores, torch.cat([relevance, relevance[:1]]), ties).whole.gains
    assert torch.equal(found, long[:-1])


@pytest.mark.parametrize("highest", [0, 2])
def test_a_part_is_ranked_alone(highest: int) -> None:
    scores, part = torch.rand(9, 50).round(decimals=1), torch.rand(50) < 0.4
    gains = torch.randint(0, highest + 1, (9, 50))
    ranked = ranking.rank_gallery(scores, gains, "pessimistic", part)
    assert ranked.part is not None
    alone = ranking.rank_gallery(scores[:, part], gains[:, part], "pessimistic").whole
    assert torch.equal(ranked.part.gains, alone.gains)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s, r: functional.best_ranks(s, r[:, :2]), "same shape"),
        (lambda s, r: functional.best_ranks(s[:0], r[:0]), "at least one query"),
        (lambda s, r: functional.best_ranks(s, r, "random"), "ties: 'random'"),  # type: ignore[arg-type]
        (lambda s, r: functional.average_precision(s, r, 3, "mean"), "normaliser: 'mean'"),  # type: ignore[arg-type]
        (lambda s, r: functional.average_precision(s, r, 0), "cutoff: 0"),
        (lambda s, r: functional.ranking_metrics(s, r.int() - 1), "gains: below 0"),
    ],
)
def test_bad_input_is_one_clear_line(call: Callable[[Tensor, Tensor], Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        call(torch.rand(2, 3), torch.zeros(2, 3, dtype=torch.bool))
    assert "\n" not in str(error.value)


@pytest.fixture(scope="module")
def untied() -> tuple[Tensor, Tensor]:
    """Positive scores without ties, and gains; every query has relevant items."""
    generator = np.random.default_rng(4)
    scores = torch.from_numpy(np.stack([generator.permutation(300) + 1.0 for _ in range(40)]) / 300)
    gains = torch.from_numpy(generator.poisson(0.4, (40, 300)))
    return scores.float(), gains


def test_trec_eval_agrees_without_ties(untied: tuple[Tensor, Tensor]) -> None:
    scores, gains = untied
    truth = {str(q): {str(i): int(g) for i, g in enumerate(row)} for q, row in enumerate(gains.tolist())}
    run = {str(q): {str(i): s for i, s in enumerate(row)} for q, row in enumerate(scores.tolist())}
    measures = {"map", "map_cut.20", "P.20", "recall.20", "ndcg_cut.20", "iprec_at_recall"}
    found = pytrec_eval.RelevanceEvaluator(truth, measures).evaluate(run)
    ours = functional.ranking_metrics(scores, gains, (20,), "all")
    names = {"AP": "map", "AP@20": "map_cut_20", "P@20": "P_20", "R@20": "recall_20", "NDCG@20": "ndcg_cut_20"}
    for key, name in (names | {f"P@r{level / 10}": f"iprec_at_recall_{level / 10:.2f}" for level in range(11)}).items():
        values = ours[key]
        assert values.tolist() == pytest.approx([found[str(q)][name] for q in range(len(scores))], abs=1e-12), name


def test_ranx_agrees_without_ties(untied: tuple[Tensor, Tensor]) -> None:
    scores, gains = untied
    # (item, gain) of the relevant items and (item, score) of all, best first, as ranx has them inside.
    truth = [np.array([(i, row[i]) for i in np.argsort(row)[::-1] if row[i]], dtype=float) for row in gains.tolist()]
    run = [np.array([(i, row[i]) for i in np.argsort(row)[::-1]], dtype=float) for row in scores.tolist()]
    precisions = [_average_precision(t, r, 20, 1) for t, r in zip(truth, run, strict=True)]
    assert functional.average_precision(scores, gains > 0, 20, "all").tolist() == pytest.approx(precisions, abs=1e-9)
    cumulated = [_ndcg(t, r, 20, 1, True) for t, r in zip(truth, run, strict=True)]
    assert functional.ranking_metrics(scores, gains, (20,))["NDCG@20"].tolist() == pytest.approx(cumulated, abs=1e-9)


def test_torchmetrics_agrees_on_positive_scores(untied: tuple[Tensor, Tensor]) -> None:
    scores, gains = untied
    rows = torch.arange(len(scores))[:, None].expand_as(scores).flatten()
    ours = functional.ranking_metrics(scores, gains, (20,))
    for theirs, target, key in (
        (RetrievalMAP(), gains > 0, "AP"),
        (RetrievalMAP(top_k=20), gains > 0, "AP@20"),
        (RetrievalPrecision(top_k=20), gains > 0, "P@20"),
        (RetrievalRecall(top_k=20), gains > 0, "R@20"),
        (RetrievalNormalizedDCG(top_k=20), gains, "NDCG@20"),
    ):
        found = theirs(scores.flatten(), target.flatten(), indexes=rows)
        assert float(ours[key].mean()) == pytest.approx(float(found), abs=1e-5), theirs
