"""A cheap first pass, and an exact second look at its best: ranks where scoring every pair would take too long.

Each query orders all candidates by the cosine of the pooled vectors; its first K are scored again by the scorer and
stand before all others, which keep their order.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import normalize

from itmbench.encoders.embeddings import Embeddings
from itmbench.evaluation.grid import Grid
from itmbench.evaluation.parallel import tile_map
from itmbench.evaluation.ranking import Ties
from itmbench.evaluation.scoring import Name, Scorer, full_precision, score

SAMPLE = 200
"""Queries of each direction that are also ranked exactly, to say what the shortlist has lost."""


class Shortlist:
    """Ranks by the cosine of the pooled vectors, and by the scorer within the first K of every query.

    Args:
        images: `[Ni]`.
        texts: `[Nt]`.
        scorer: (images, texts) -> scores.
        size: K.
        name: what to call an image in an error.
    """

    def __init__(self, images: Embeddings, texts: Embeddings, scorer: Scorer, size: int, name: Name) -> None:
        self._images, self._texts, self._scorer, self._name = images, texts, scorer, name
        self._coarse = Grid(Embeddings(images.pooled), Embeddings(texts.pooled), None, name)
        self._size = size
        self._lists = (
            self._rescored(images, texts, scorer),
            self._rescored(texts, images, lambda asked, found: scorer(found, asked).T),
        )

    def ranks(self, pair_sets: Sequence[Tensor], ties: Ties) -> list[tuple[Tensor, Tensor]]:
        """As `itmbench.evaluation.grid.Grid.ranks`."""
        coarse = self._coarse.ranks(pair_sets, ties)
        return [
            (
                self._within(0, pairs, coarse_i2t, ties),
                self._within(1, pairs.flip(1), coarse_t2i, ties),
            )
            for pairs, (coarse_i2t, coarse_t2i) in zip(pair_sets, coarse, strict=True)
        ]

    def lost(self, pairs: Tensor, found: tuple[Tensor, Tensor], ties: Ties, ks: Sequence[int]) -> dict[str, float]:
        """How much higher each recall is by the scorer alone, over `SAMPLE` random queries of each direction.

        Args:
            pairs: int64 `[P, 2]`, image and text.
            found: what ``ranks`` gave for them.
            ties: as there.
            ks: the K of each recall.
        """
        lost = {}
        for side, (direction, ranks) in enumerate(zip(("i2t", "t2i"), found, strict=True)):
            asked = pairs[:, side].unique()
            order = torch.randperm(len(asked), generator=torch.Generator().manual_seed(0)).to(asked.device)
            sample = asked[order[:SAMPLE]].sort().values
            mine = pairs[torch.isin(pairs[:, side], sample)]
            mine[:, side] = torch.searchsorted(sample, mine[:, side].contiguous())
            images, texts = (self._images[sample], self._texts) if side == 0 else (self._images, self._texts[sample])
            exact = Grid(images, texts, self._scorer, self._name).ranks([mine], ties)[0][side]
            for k in ks:
                lost[f"shortlist/{direction}/lost R@{k}"] = float(
                    (exact <= k).double().mean() - (ranks[sample] <= k).double().mean()
                )
        return lost

    def _rescored(self, asked: Embeddings, found: Embeddings, scorer: Scorer) -> tuple[Tensor, Tensor]:
        """The shortlist of every query, int64 `[Nq, K]`, and its scores `[Nq, K]`."""
        size = min(self._size, len(found))
        with full_precision(asked.pooled.device):
            table = normalize(found.pooled.double(), dim=1)
            lists = torch.cat(
                [
                    (normalize(some.double(), dim=1) @ table.T).topk(size, dim=1).indices
                    for some in asked.pooled.split(max(1, (1 << 22) // len(found)))
                ]
            )
        scores = tile_map(
            lambda row: score(scorer, asked[row : row + 1], found[lists[row]], lambda _: f"query {row}"),
            range(len(asked)),
            asked.pooled.device,
        )
        return lists, torch.cat(list(scores))

    def _within(self, side: int, pairs: Tensor, coarse: Tensor, ties: Ties) -> Tensor:
        """Final ranks `[Nq]` from those of the first pass; pairs are (query, item)."""
        lists, scores = self._lists[side]
        items = len(self._texts) if side == 0 else len(self._images)
        keys = torch.arange(len(lists), device=lists.device).unsqueeze(1) * items + lists
        own = torch.isin(keys, pairs[:, 0] * items + pairs[:, 1])
        best = scores.masked_fill(~own, -torch.inf).amax(1, keepdim=True)
        reach = scores >= best if ties == "pessimistic" else scores > best
        rank = 1 + (reach & ~own).sum(1)
        # Ties in the first pass lose as well: who may be behind the shortlist is not on it.
        listed = own.any(1) & (coarse <= lists.shape[1])
        return torch.where(listed, rank, coarse.clamp(min=lists.shape[1] + 1))
