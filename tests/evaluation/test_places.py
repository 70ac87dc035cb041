"""Places of all matches against a sorted list, with ties, repeated items, many tiles and queries without matches."""

from typing import Any

import pytest
import torch
from evaluation import reference
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from itmbench.encoders.embeddings import Embeddings
from itmbench.evaluation import scoring
from itmbench.evaluation.grid import Grid
from itmbench.evaluation.places import truth_metrics
from itmbench.evaluation.shortlist import Shortlist


@st.composite
def tables(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    """Scores of few different values, and which pairs match; some items match nothing."""
    images, texts = draw(st.integers(1, 8)), draw(st.integers(1, 12))
    cells = images * texts
    scores = draw(st.lists(st.integers(-2, 2), min_size=cells, max_size=cells))
    true = draw(st.lists(st.booleans(), min_size=cells, max_size=cells))
    return torch.tensor(scores).view(images, texts) / 2, torch.tensor(true).view(images, texts)


@settings(max_examples=100, deadline=None)
@given(tables(), st.sampled_from(["pessimistic", "optimistic"]), st.integers(1, 40))
def test_metrics_of_places_are_those_of_their_definitions(table: tuple[Tensor, Tensor], ties: Any, tile: int) -> None:
    scores, true = table

    def scorer(images: Embeddings, texts: Embeddings) -> Tensor:
        return scores[images.pooled[:, 0].long()][:, texts.pooled[:, 0].long()]

    images, texts = (Embeddings(torch.arange(float(n))[:, None]) for n in scores.shape)
    pairs = true.nonzero()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scoring, "_SCORER_TILE", tile)
        _, both = Grid(images, texts, scorer, str).ranks_and_places(pairs[:1], (pairs, pairs), ties)
    for side, places in enumerate(both):
        queries, found = pairs[:, side], truth_metrics(pairs[:, side], places)
        rows = list(zip(*((t.T if side else t)[queries.unique()].tolist() for t in (scores, true)), strict=True))
        assert found[0].tolist() == [reference.best_rank(row, matches, ties) for row, matches in rows]
        assert found[1].tolist() == pytest.approx([reference.map_at_r(row, matches, ties) for row, matches in rows])
        assert found[2].tolist() == pytest.approx([reference.r_precision(row, matches, ties) for row, matches in rows])
        for query in queries.unique():
            assert len(places[queries == query].unique()) == (queries == query).sum()


@pytest.mark.parametrize("ties", ["pessimistic", "optimistic"])
@pytest.mark.parametrize("tile", [1 << 20, 501])
def test_repeated_items_tie_wherever_they_stand(monkeypatch: pytest.MonkeyPatch, tile: int, ties: Any) -> None:
    monkeypatch.setitem(scoring._COSINE_TILE, "cpu", tile)
    generator = torch.Generator().manual_seed(5)
    kinds = torch.randn(9, 33, generator=generator)
    image_at, text_at = torch.randint(9, (40,), generator=generator), torch.randint(9, (90,), generator=generator)
    true = torch.rand(40, 90, generator=generator) < 0.2
    unit = torch.nn.functional.normalize(kinds.double())
    scores, pairs = (unit @ unit.T).float()[image_at][:, text_at], true.nonzero()
    _, both = Grid(Embeddings(kinds[image_at]), Embeddings(kinds[text_at]), None, str).ranks_and_places(
        pairs[:0], (pairs, pairs), ties
    )
    for side, places in enumerate(both):
        _, precisions, _ = truth_metrics(pairs[:, side], places)
        rows = zip(*((t.T if side else t).tolist() for t in (scores, true)), strict=True)
        assert precisions.tolist() == pytest.approx(
            [reference.map_at_r(row, matches, ties) for row, matches in rows if any(matches)]
        )


@pytest.mark.parametrize("size", [1, 5, 40])
def test_a_shortlist_places_matches_by_both_scores(size: int) -> None:
    generator = torch.Generator().manual_seed(6)
    images, texts = (
        Embeddings(torch.randn(n, 4, generator=generator), torch.randn(n, 1, 4, generator=generator)) for n in (12, 30)
    )

    def fine(images: Embeddings, texts: Embeddings) -> Tensor:
        assert images.tokens is not None and texts.tokens is not None
        return images.tokens[:, 0] @ texts.tokens[:, 0].T

    pairs = (torch.rand(12, 30, generator=generator) < 0.3).nonzero()
    _, both = Shortlist(images, texts, fine, size, str).ranks_and_places(pairs[:1], (pairs, pairs), "pessimistic")
    unit = torch.nn.functional.normalize
    coarse, exact = unit(images.pooled) @ unit(texts.pooled).T, fine(images, texts)
    for side, places in enumerate(both):
        for (query, item), place in zip((pairs.flip(1) if side else pairs).tolist(), places.tolist(), strict=True):
            first, second = ((t.T if side else t)[query].tolist() for t in (coarse, exact))
            ranked = sorted(range(len(first)), key=lambda item, first=first: -first[item])  # type: ignore[misc]
            ranked[:size] = sorted(ranked[:size], key=lambda item, second=second: -second[item])  # type: ignore[misc]
            assert place == 1 + ranked.index(item)


def test_matches_that_tie_in_the_first_pass_are_not_on_the_list() -> None:
    generator = torch.Generator().manual_seed(7)
    images, texts = (Embeddings(torch.ones(n, 4), torch.randn(n, 1, 4, generator=generator)) for n in (12, 30))

    def fine(images: Embeddings, texts: Embeddings) -> Tensor:
        assert images.tokens is not None and texts.tokens is not None
        return images.tokens[:, 0] @ texts.tokens[:, 0].T

    pairs = (torch.rand(12, 30, generator=generator) < 0.25).nonzero()
    lost, won = (
        Shortlist(images, texts, fine, 5, str).ranks_and_places(pairs[:1], (pairs, pairs), ties)[1]
        for ties in ("pessimistic", "optimistic")
    )
    for side, items in enumerate((30, 12)):
        for query in pairs[:, side].unique():
            of_query = pairs[:, side] == query
            number = int(of_query.sum())
            assert lost[side][of_query].sort().values.tolist() == list(range(items - number + 1, items + 1))
            listed = [place for place in won[side][of_query].tolist() if place <= 5]
            assert len(set(listed)) == len(listed)
