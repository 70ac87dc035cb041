"""All images against all texts in tiles: ranks of given pairs in both directions from one pass over the scores."""

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from itmbench.encoders.embeddings import Embeddings
from itmbench.evaluation.parallel import tile_map
from itmbench.evaluation.ranking import Ties
from itmbench.evaluation.scoring import Name, Scorer, comparable, distinct, full_precision, score

# Scores kept between the two looks at the tiles that hold pairs (128 MiB); texts sorted by image have few such tiles.
_KEPT = 1 << 25


class Grid:
    """The scores of every image-text pair, computed tile by tile and never kept.

    Args:
        images: `[Ni]`.
        texts: `[Nt]`; cheapest when sorted by image.
        scorer: (images, texts) -> scores; None is the cosine of the pooled vectors.
        name: what to call an image in an error.
    """

    def __init__(self, images: Embeddings, texts: Embeddings, scorer: Scorer | None, name: Name) -> None:
        images, texts, self._scorer, area = comparable(images, texts, scorer)
        self._name = name
        self._images, self._image_at = distinct(images)
        self._texts, self._text_at = distinct(texts)
        # As many tiles down as across: texts sorted by image then meet their own images near the diagonal.
        square = math.isqrt(math.ceil(area * len(self._images) / len(self._texts)))
        self._height = max(1, min(square, area, len(self._images)))
        self._width = max(1, min(area // self._height, len(self._texts)))
        self._across = math.ceil(len(self._texts) / self._width)
        self._side = math.isqrt(area)
        self._images_of = _members(self._image_at, self._height)
        self._texts_of = _members(self._text_at, self._width)

    def scores(self, pairs: Tensor) -> Tensor:
        """Scores of the given pairs only, float32 `[P]`; only tiles that hold one of them are computed.

        Args:
            pairs: int64 `[P, 2]`, image and text.
        """
        return self._scores(pairs, keep=0)[0]

    def ranks(self, pair_sets: Sequence[Tensor], ties: Ties) -> list[tuple[Tensor, Tensor]]:
        """For each set of pairs: the rank of every image's best-ranked text of the set, and the same for texts.

        Ranks count from 1 and pass over the other pairs of the set; an item that is in no pair gets one more than the
        last rank.

        Args:
            pair_sets: int64 `[P, 2]` each, image and text, no pair twice in a set.
            ties: "pessimistic" or "optimistic".

        Returns:
            int64 `[Ni]` and `[Nt]` for each set.
        """
        pairs = torch.cat(list(pair_sets))
        values, kept = self._scores(pairs, keep=_KEPT // (self._height * self._width))
        counts = [
            _Count(subset, scores, len(self._image_at), len(self._text_at), ties)
            for subset, scores in zip(pair_sets, values.split([len(p) for p in pair_sets]), strict=True)
        ]
        cells = self._by_cell(pairs)

        def ahead(cell: int) -> list[tuple[_Count, Tensor, Tensor, Tensor, Tensor]]:
            tile = kept.pop(cell) if cell in kept else self._tile(cell)
            if cell in cells:
                # The pairs' scores that the rest is compared with: a scorer may not repeat itself to the last bit.
                tile = tile.index_put(self._within(pairs[cells[cell]]), values[cells[cell]])
            return [
                (count, images, texts, *count.ahead(images, texts, block))
                for images, texts, block in self._blocks(cell, tile)
                for count in counts
            ]

        with full_precision(pairs.device):  # set once: it is one setting for all threads
            for tile_counts in tile_map(ahead, range(len(self._images_of) * len(self._texts_of)), pairs.device):
                for count, images, texts, of_images, of_texts in tile_counts:
                    count.add(images, texts, of_images, of_texts)
        return [count.ranks() for count in counts]

    def _scores(self, pairs: Tensor, keep: int) -> tuple[Tensor, dict[int, Tensor]]:
        """Scores of the given pairs `[P]`, and the first few of the tiles that were computed for them."""
        values = torch.empty(len(pairs), device=pairs.device)
        kept: dict[int, Tensor] = {}
        for cell, members in self._by_cell(pairs).items():
            tile = self._tile(cell)
            values[members] = tile[self._within(pairs[members])]
            if len(kept) < keep:
                kept[cell] = tile
        return values, kept

    def _tile(self, cell: int) -> Tensor:
        down, across = divmod(cell, self._across)
        top, left = down * self._height, across * self._width
        return score(
            self._scorer,
            self._images[top : top + self._height],
            self._texts[left : left + self._width],
            lambda row: self._name(int((self._image_at == top + row).int().argmax())),
        )

    def _by_cell(self, pairs: Tensor) -> dict[int, Tensor]:
        """The rows of ``pairs`` in every tile that holds any."""
        cells = self._image_at[pairs[:, 0]] // self._height * self._across + self._text_at[pairs[:, 1]] // self._width
        order = cells.argsort()
        found, sizes = cells[order].unique_consecutive(return_counts=True)
        return dict(zip(found.tolist(), order.split(sizes.tolist()), strict=True))

    def _within(self, pairs: Tensor) -> tuple[Tensor, Tensor]:
        return self._image_at[pairs[:, 0]] % self._height, self._text_at[pairs[:, 1]] % self._width

    def _blocks(self, cell: int, tile: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Images, texts and their scores in this tile, with repeated items as often as they are there."""
        down, across = divmod(cell, self._across)
        images, texts = self._images_of[down], self._texts_of[across]
        if tile.shape == (len(images), len(texts)):
            yield images, texts, tile
            return
        for some in images.split(self._side):
            rows = tile[self._image_at[some] % self._height]
            for others in texts.split(self._side):
                yield some, others, rows[:, self._text_at[others] % self._width]


class _Count:
    """How many scores reach the best of each image's and of each text's pairs."""

    def __init__(self, pairs: Tensor, values: Tensor, images: int, texts: int, ties: Ties) -> None:
        self._reach = torch.ge if ties == "pessimistic" else torch.gt
        self._image_best, self._image_ahead = self._start(pairs[:, 0], values, images)
        self._text_best, self._text_ahead = self._start(pairs[:, 1], values, texts)

    def ahead(self, images: Tensor, texts: Tensor, block: Tensor) -> tuple[Tensor, Tensor]:
        """How many of the scores `[images, texts]` of a block reach each image's and each text's best."""
        reached = torch.empty_like(block)  # 0.0 or 1.0: floats are added several times faster than bools
        self._reach(block, self._image_best[images, None], out=reached)
        of_images = reached.sum(dim=1).long()
        self._reach(block, self._text_best[texts], out=reached)
        return of_images, reached.sum(dim=0).long()

    def add(self, images: Tensor, texts: Tensor, of_images: Tensor, of_texts: Tensor) -> None:
        """Add what `ahead` found in a block."""
        self._image_ahead[images] += of_images
        self._text_ahead[texts] += of_texts

    def ranks(self) -> tuple[Tensor, Tensor]:
        """Ranks from 1 of images' best texts and texts' best images."""
        return 1 + self._image_ahead, 1 + self._text_ahead

    def _start(self, items: Tensor, values: Tensor, n: int) -> tuple[Tensor, Tensor]:
        """The best score of each item's pairs, and minus the number of its pairs that will be counted with the rest."""
        best = torch.full((n,), -torch.inf, device=values.device).scatter_reduce_(0, items, values, "amax")
        return best, -items[self._reach(values, best[items])].bincount(minlength=n)


def _members(place: Tensor, step: int) -> list[Tensor]:
    """The items of every tile, by place: each tile holds ``step`` places, and equal items share one."""
    return list(place.argsort(stable=True).split((place // step).bincount().tolist()))
