"""The shortlist against a slow loop, its limits, and what it says it has lost."""

import math
from typing import Any

import pytest
import torch
from evaluation import reference
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import normalize

from itmbench.encoders import Embeddings
from itmbench.evaluation.grid import Grid
from itmbench.evaluation.label import label_queries
from itmbench.evaluation.shortlist import Shortlist

IMAGES, TEXTS = 12, 36
PAIRS = torch.stack([torch.arange(TEXTS) // 3, torch.arange(TEXTS)], dim=1)


def table(rows: int, seed: int) -> Embeddings:
    generator = torch.Generator().manual_seed(seed)
    return Embeddings(
        torch.randn(rows, 4, generator=generator),
        torch.randn(rows, 1, 4, generator=generator),
        torch.ones(rows, 1, dtype=torch.bool),
    )


def fine(images: Embeddings, texts: Embeddings) -> Tensor:
    """A scorer that orders unlike the pooled vectors."""
    assert images.tokens is not None and texts.tokens is not None
    return images.tokens[:, 0] @ texts.tokens[:, 0].T


def slow_rank(coarse: list[float], second: list[float], own: set[int], size: int) -> int:
    """Order all by the first score, the first ``size`` of them again by the second."""
    order = sorted(range(len(coarse)), key=lambda item: -coarse[item])
    order[:size] = sorted(order[:size], key=lambda item: -second[item])
    found = [item for item in order if item not in own or item == next(i for i in order if i in own)]
    return 1 + next(place for place, item in enumerate(found) if item in own)


@pytest.mark.parametrize("size", [1, 5, 12, 100])
def test_ranks_are_those_of_the_slow_loop(size: int) -> None:
    images, texts = table(IMAGES, 1), table(TEXTS, 2)
    i2t, t2i = Shortlist(images, texts, fine, size, str).ranks(PAIRS, "pessimistic")
    coarse = normalize(images.pooled, dim=1) @ normalize(texts.pooled, dim=1).T
    second = fine(images, texts)
    assert i2t.tolist() == [
        slow_rank(coarse[row].tolist(), second[row].tolist(), {3 * row, 3 * row + 1, 3 * row + 2}, size)
        for row in range(IMAGES)
    ]
    assert t2i.tolist() == [
        slow_rank(coarse[:, row].tolist(), second[:, row].tolist(), {row // 3}, size) for row in range(TEXTS)
    ]


def test_a_list_of_everything_is_exact_and_loses_nothing() -> None:
    images, texts = table(IMAGES, 1), table(TEXTS, 2)
    shortlist = Shortlist(images, texts, fine, TEXTS, str)
    found, exact = (
        shortlist.ranks(PAIRS, "pessimistic"),
        Grid(images, texts, fine, str).ranks(PAIRS, "pessimistic"),
    )
    assert all(torch.equal(one, other) for one, other in zip(found, exact, strict=True))
    assert set(shortlist.lost(PAIRS, found, "pessimistic", (1, 5)).values()) == {0.0}


def test_a_collapsed_first_pass_gives_the_last_rank() -> None:
    images, texts = table(IMAGES, 1), table(TEXTS, 2)
    images.pooled[:], texts.pooled[:] = 1.0, 1.0
    i2t, t2i = Shortlist(images, texts, fine, 5, str).ranks(PAIRS, "pessimistic")
    assert set(i2t.tolist()) == {TEXTS - 2} and set(t2i.tolist()) == {IMAGES}


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 40), st.sampled_from(["pessimistic", "optimistic"]))
def test_label_retrieval_ranks_a_shortlist_as_a_slow_loop_does(seed: int, size: int, ties: Any) -> None:
    generator = torch.Generator().manual_seed(seed)
    directions = torch.tensor([[1.0, 0.0], [0.0, 1.0], [3.0, 4.0], [4.0, 3.0]])  # few cosines, so many ties

    def items(count: int) -> Embeddings:
        tokens = torch.randint(3, (count, 1, 2), generator=generator).float()
        pooled = directions[torch.randint(4, (count,), generator=generator)]
        return Embeddings(pooled, tokens, torch.ones(count, 1, dtype=torch.bool))

    queries, gallery = items(4), items(30)
    asked, there = (torch.randint(2, (count, 2), generator=generator) for count in (4, 30))
    found = label_queries(queries, gallery, asked, there, (3,), "retrieved", fine, ties, str, shortlist=size)

    second, gains = fine(queries, gallery), asked @ there.T
    coarse = normalize(queries.pooled, dim=1) @ normalize(gallery.pooled, dim=1).T
    assert gallery.tokens is not None
    contents = torch.cat([gallery.pooled, gallery.tokens[:, 0]], dim=1).tolist()
    different = {tuple(content): item for item, content in enumerate(contents)}
    for row in range(4):
        best = sorted((float(coarse[row, item]) for item in different.values()), reverse=True)
        behind = best[size] if size < len(best) else -math.inf
        keys = [
            (1, float(second[row, item])) if coarse[row, item] > behind else (0, float(coarse[row, item]))
            for item in range(30)
        ]
        scores = [sorted(set(keys)).index(key) for key in keys]
        expected = reference.average_precision(scores, gains[row].tolist(), None, "all", ties)
        assert float(found["AP"][row]) == pytest.approx(expected)
