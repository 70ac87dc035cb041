"""Shortlists: rank all candidates cheaply and score only the best exactly, if scoring every pair takes too long.

Each query orders all candidates by the cosine of the pooled vectors. The scorer reorders the first K, which stay ahead
of all others.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import normalize

from itmbench.encoders.embeddings import Embeddings, Items
from itmbench.evaluation.grid import Grid, Sides
from itmbench.evaluation.parallel import tile_map
from itmbench.evaluation.places import Places
from itmbench.evaluation.ranking import Ties
from itmbench.evaluation.ranks import by_rank, summed
from itmbench.evaluation.scoring import Name, Scorer, comparable, distinct, full_precision, score

SAMPLE = 200
"""Queries per direction that are also ranked exactly, to measure the loss of the shortlist."""


def sampled(queries: int) -> Tensor:
    """Which of some queries are also ranked exactly, int64 `[SAMPLE]` or fewer, ascending."""
    return torch.randperm(queries, generator=torch.Generator().manual_seed(0))[:SAMPLE].sort().values


class Shortlist:
    """Rank by the cosine of the pooled vectors, and by the scorer within the first ``size`` of each query."""

    def __init__(self, images: Items, texts: Items, scorer: Scorer, size: int, name: Name) -> None:
        self._images, self._texts, self._scorer, self._name = images, texts, scorer, name
        self._coarse = Grid(Embeddings(images.pooled), Embeddings(texts.pooled), None, name)
        self._size = size
        self._lists = (
            self._rescored(images, texts, scorer),
            self._rescored(texts, images, lambda queries, candidates: scorer(candidates, queries).T),
        )

    def ranks(self, pairs: Tensor, ties: Ties) -> Sides:
        """See `itmbench.evaluation.grid.Grid.ranks`."""
        return self.ranks_and_places(pairs, None, ties)[0]

    def ranks_and_places(self, pairs: Tensor, matches: Sides | None, ties: Ties) -> tuple[Sides, Sides]:
        """See `itmbench.evaluation.grid.Grid.ranks_and_places`."""
        ranks, places = self._coarse.ranks_and_places(pairs, matches, ties)
        of_i2t, of_t2i = matches or (pairs[:0], pairs[:0])
        return (
            (self._within(0, pairs, ranks[0], ties), self._within(1, pairs.flip(1), ranks[1], ties)),
            (self._places(0, of_i2t, places[0], ties), self._places(1, of_t2i.flip(1), places[1], ties)),
        )

    def lost(self, pairs: Tensor, ranks: tuple[Tensor, Tensor], ties: Ties, ks: Sequence[int]) -> dict[str, float]:
        """Recall of exact scoring minus that of the ``ranks`` of these pairs, over ``SAMPLE`` queries per direction."""
        lost = {}
        for side, (direction, short) in enumerate(zip(("i2t", "t2i"), ranks, strict=True)):
            queries = pairs[:, side].unique()
            sample = queries[sampled(len(queries)).to(queries.device)]
            sampled_pairs = pairs[torch.isin(pairs[:, side], sample)]
            sampled_pairs[:, side] = torch.searchsorted(sample, sampled_pairs[:, side].contiguous())
            images, texts = self._images, self._texts
            images, texts = (images.select(sample), texts) if side == 0 else (images, texts.select(sample))
            exact = Grid(images, texts, self._scorer, self._name).ranks(sampled_pairs, ties)[side]
            for k in ks:
                lost[f"shortlist/{direction}/lost R@{k}"] = float(
                    (exact <= k).double().mean() - (short[sample] <= k).double().mean()
                )
        return lost

    def _rescored(self, queries: Items, candidates: Items, scorer: Scorer) -> tuple[Tensor, Tensor]:
        """The shortlist of every query, int64 `[Nq, K]`, and its scores `[Nq, K]`."""
        size = min(self._size, len(candidates))
        with full_precision(queries.pooled.device):
            table = normalize(candidates.pooled.double(), dim=1)
            lists = torch.cat(
                [
                    (normalize(block.double(), dim=1) @ table.T).topk(size, dim=1).indices
                    for block in queries.pooled.split(max(1, (1 << 22) // len(candidates)))
                ]
            )

        def rescored(share: Sequence[int]) -> list[Tensor]:
            scores = torch.zeros(len(queries), size)
            of_rows = tile_map(
                lambda row: score(scorer, queries[row : row + 1], candidates[lists[row]], lambda _: f"query {row}"),
                share,
                queries.pooled.device,
            )
            for row, of_row in zip(share, of_rows, strict=True):
                scores[row] = of_row.squeeze(0)
            return [scores]

        [scores] = summed(by_rank(rescored, len(queries)))
        return lists, scores.to(lists.device)

    def _within(self, side: int, pairs: Tensor, coarse: Tensor, ties: Ties) -> Tensor:
        """Final ranks `[Nq]` from those of the first pass, ``coarse``; pairs are (query, item)."""
        lists, scores = self._lists[side]
        items = len(self._texts) if side == 0 else len(self._images)
        keys = torch.arange(len(lists), device=lists.device).unsqueeze(1) * items + lists
        correct = torch.isin(keys, pairs[:, 0] * items + pairs[:, 1])
        best = scores.masked_fill(~correct, -torch.inf).amax(1, keepdim=True)
        ahead = scores >= best if ties == "pessimistic" else scores > best
        rank = 1 + (ahead & ~correct).sum(1)
        # Ties lose in the first pass, too: an item that may rank behind the shortlist is not on it.
        listed = correct.any(1) & (coarse <= lists.shape[1])
        return torch.where(listed, rank, coarse.clamp(min=lists.shape[1] + 1))

    def _places(self, side: int, matches: Tensor, coarse: Tensor, ties: Ties) -> Tensor:
        """Final places `[M]` of matches (query, item) from those of the first pass, ``coarse``."""
        lists, scores = self._lists[side]
        queries, items = matches.T
        listed = (lists[queries] == items[:, None]) & (coarse <= lists.shape[1])[:, None]
        on = listed.any(1)
        exact = Places(queries[on], scores[queries][listed], len(lists), ties)
        exact.add(*exact.ahead(torch.arange(len(lists), device=lists.device), scores))
        places = coarse.clamp(min=lists.shape[1] + 1)
        places[on] = exact.places()
        return places


class RescoredRows:
    """Score the shortlist of each query, and put it ahead of all other candidates, which keep their cosines.

    Candidates that tie with the first one behind the shortlist stay behind with it.

    Args:
        gallery: embeddings `[N]`.
        scorer: (queries, candidates) -> scores.
        size: K, the most candidates on a shortlist.
    """

    def __init__(self, gallery: Items, scorer: Scorer, size: int) -> None:
        self.candidates, self.place = distinct(gallery)  # `[C]` without duplicates; their rows of the gallery's items
        _, _, self._scorer, self._tile = comparable(gallery, gallery, scorer)
        self._size = size

    def __call__(self, cosines: Tensor, queries: Items, start: int, name: Name) -> Tensor:
        """Scores that rank so, float32 `[q, C]`, in place of the cosines `[q, C]` of the queries from ``start`` on."""

        def rescored(row: int) -> tuple[Tensor, Tensor]:
            best = cosines[row].topk(min(self._size + 1, len(self.candidates)))
            behind = best.values[-1] if len(best.values) > self._size else -torch.inf
            listed = best.indices[best.values > behind].sort().values
            if not len(listed):
                return listed, cosines[row, listed]
            query = queries[start + row : start + row + 1]
            exact = [
                score(self._scorer, query, self.candidates[part], lambda _: name(start + row))
                for part in listed.split(self._tile)
            ]
            # Whole numbers above every cosine, which keep the order of the scores and their ties.
            return listed, 2.0 + torch.cat(exact, dim=1).squeeze(0).unique(return_inverse=True)[1]

        with full_precision(cosines.device):
            for row, (listed, values) in enumerate(tile_map(rescored, range(len(cosines)), cosines.device)):
                cosines[row, listed] = values
        return cosines
