import math
from typing import Any

import pytest
import torch
from evaluation import reference
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from itmbench.encoders.embeddings import Embeddings
from itmbench.errors import InputError
from itmbench.evaluation import label, label_retrieval, ranking, scoring
from itmbench.evaluation.ranking import Normaliser

NORMALISERS: tuple[Normaliser, ...] = ("retrieved", "min", "all", "mith")


def expected(scores: Tensor, gains: Tensor, cutoffs: tuple[int, ...], normaliser: str, ties: str) -> dict[str, float]:
    rows = list(zip(scores.tolist(), gains.tolist(), strict=True))

    def mean(values: list[float]) -> float:
        return math.fsum(values) / len(rows)

    metrics = {"mAP": mean([reference.average_precision(s, g, None, "all", ties) for s, g in rows])}
    for k in cutoffs:
        metrics[f"mAP@{k}"] = mean([reference.average_precision(s, g, k, normaliser, ties) for s, g in rows])
        metrics[f"P@{k}"] = mean([reference.precision(s, g, k, ties) for s, g in rows])
        metrics[f"R@{k}"] = mean([reference.recall(s, g, k, ties) for s, g in rows])
        metrics[f"NDCG@{k}"] = mean([reference.ndcg(s, g, k, ties) for s, g in rows])
    levels = [reference.interpolated(s, g, ties) for s, g in rows]
    metrics |= {f"P@r{level / 10}": mean([row[level] for row in levels]) for level in range(11)}
    metrics["queries_without_relevant"] = sum(not any(g) for _, g in rows)
    return metrics


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**31),
    st.integers(1, 7),
    st.integers(1, 30),
    st.sampled_from(NORMALISERS),
    st.sampled_from(["pessimistic", "optimistic"]),
    st.integers(1, 50),
)
def test_a_scorer_gives_what_the_definition_gives(
    seed: int, queries: int, gallery: int, normaliser: Any, ties: Any, tile: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    table = torch.randint(-2, 3, (queries, gallery), generator=generator) / 2
    query_labels = torch.randint(2, (queries, 3), generator=generator)
    gallery_labels = torch.randint(2, (gallery, 3), generator=generator)

    def scorer(asked: Embeddings, found: Embeddings) -> Tensor:
        return table[asked.pooled[:, 0].long()][:, found.pooled[:, 0].long()]

    numbers = torch.arange(30, dtype=torch.float32)[:, None]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scoring, "_SCORER_TILE", tile)
        patch.setattr(label, "_SCORES", 3 * tile)
        patch.setitem(ranking._BLOCK, "cpu", 2 * tile)
        found = label_retrieval(
            numbers[:queries], numbers[:gallery], query_labels, gallery_labels, (1, 6), normaliser, scorer, ties
        )
    gains = query_labels @ gallery_labels.T
    assert found == pytest.approx(expected(table, gains, (1, 6), normaliser, ties), abs=1e-12)


@pytest.mark.parametrize("ties", ["pessimistic", "optimistic"])
@pytest.mark.parametrize("tile", [1 << 20, 503])
def test_repeated_items_tie_wherever_they_stand(monkeypatch: pytest.MonkeyPatch, tile: int, ties: Any) -> None:
    monkeypatch.setitem(scoring._COSINE_TILE, "cpu", tile)
    generator = torch.Generator().manual_seed(2)
    kinds, queries = torch.randn(23, 61, generator=generator), torch.randn(19, 61, generator=generator)
    at = torch.randint(23, (401,), generator=generator)
    query_labels, gallery_labels = torch.eye(5)[torch.arange(19) % 5], torch.eye(5)[torch.arange(401) % 5]
    query_labels[7] = 0
    unit = torch.nn.functional.normalize
    scores = (unit(queries.double()) @ unit(kinds.double()).T).float()[:, at]
    found = label_retrieval(queries, kinds[at], query_labels, gallery_labels, (20,), ties=ties)
    assert found["queries_without_relevant"] == 1
    assert found == pytest.approx(
        expected(scores, (query_labels @ gallery_labels.T).int(), (20,), "retrieved", ties), abs=1e-12
    )


@pytest.mark.parametrize("dimensions", [1, 31, 257])
@pytest.mark.parametrize("gallery", [3, 127, 1001])
def test_a_collapsed_model_ranks_the_relevant_last(gallery: int, dimensions: int) -> None:
    one = torch.randn(1, dimensions, generator=torch.Generator().manual_seed(dimensions))
    labels = torch.zeros(gallery, 1)
    labels[::3] = 1
    arguments = one.expand(5, -1), one.expand(gallery, -1), torch.ones(5, 1), labels
    relevant = int(labels.sum())
    last = sum(n / (gallery - relevant + n) for n in range(1, relevant + 1)) / relevant
    assert label_retrieval(*arguments, cutoffs=(1,))["mAP"] == pytest.approx(last)
    assert label_retrieval(*arguments, cutoffs=(1,))["P@1"] == 0
    assert label_retrieval(*arguments, ties="optimistic")["mAP"] == pytest.approx(1)


def test_no_tile_grows_with_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring, "_SCORER_TILE", 1 << 10)
    largest = 0

    def watched(asked: Embeddings, found: Embeddings) -> Tensor:
        nonlocal largest
        largest = max(largest, len(asked) * len(found))
        return asked.pooled @ found.pooled.T

    for queries, gallery in ((200, 1000), (2, 9000), (9000, 2)):
        label_retrieval(
            torch.randn(queries, 2), torch.randn(gallery, 2), torch.ones(queries, 1), torch.ones(gallery, 1),
            scorer=watched,
        )  # fmt: skip
    assert 0.9 < largest / (1 << 10) <= 1


def test_bad_input_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    query, gallery, labels = torch.randn(5, 2), torch.randn(7, 2), torch.ones(7, 3)
    with pytest.raises(InputError, match=r"query_labels of shape \[7, 3\] for 5 items"):
        label_retrieval(query, gallery, labels, labels)
    with pytest.raises(InputError, match="query_labels have 2 labels and gallery_labels 3"):
        label_retrieval(query, gallery, labels[:5, :2], labels)
    gallery[6, 1] = math.nan
    with pytest.raises(InputError, match="embedding of gallery item 6: NaN"):
        label_retrieval(query, gallery, labels[:5], labels)

    def scorer(asked: Embeddings, found: Embeddings) -> Tensor:
        return (asked.pooled @ found.pooled.T).masked_fill((asked.pooled == query[4]).all(1)[:, None], math.inf)

    monkeypatch.setattr(label, "_SCORES", 21)
    with pytest.raises(InputError, match="scores of query 4: NaN or infinite"):
        label_retrieval(query, gallery.nan_to_num(), labels[:5], labels, scorer=scorer)
