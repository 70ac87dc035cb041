"""Score all images against all texts in tiles, and rank given pairs in both directions in one pass."""

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from itmbench.encoders.embeddings import Embeddings
from itmbench.evaluation.parallel import tile_map
from itmbench.evaluation.ranking import Ties
from itmbench.evaluation.scoring import Name, Scorer, comparable, distinct, full_precision, score

# Scores kept from the first pass, over tiles that hold pairs, for the second (128 MiB); texts sorted by image have few.
_KEPT = 1 << 25


class Grid:
    """Scores of all image-text pairs, computed tile by tile and discarded.

    Args:
        images: embeddings `[Ni]`.
        texts: embeddings `[Nt]`; cheapest if sorted by image.
        scorer: (images, texts) -> scores; None is the cosine of the pooled vectors.
        name: names an image row in errors.
    """

    def __init__(self, images: Embeddings, texts: Embeddings, scorer: Scorer | None, name: Name) -> None:
        images, texts, self._scorer, area = comparable(images, texts, scorer)
        self._name = name
        self._images, self._image_at = distinct(images)
        self._texts, self._text_at = distinct(texts)
        # As many tiles down as across: with texts sorted by image, the pairs lie near the diagonal.
        square = math.isqrt(math.ceil(area * len(self._images) / len(self._texts)))
        self._height = max(1, min(square, area, len(self._images)))
        self._width = max(1, min(area // self._height, len(self._texts)))
        self._across = math.ceil(len(self._texts) / self._width)
        self._side = math.isqrt(area)
        self._images_of = _members(self._image_at, self._height)
        self._texts_of = _members(self._text_at, self._width)

    def scores(self, pairs: Tensor) -> Tensor:
        """Score the given pairs, float32 `[P]`, computing only the tiles that hold them.

        Args:
            pairs: image and text, int64 `[P, 2]`.
        """
        return self._scores(pairs, keep=0)[0]

    def ranks(self, pair_sets: Sequence[Tensor], ties: Ties) -> list[tuple[Tensor, Tensor]]:
        """Rank, for each set of pairs, every image's best text in the set and every text's best image.

        Ranks start at 1 and skip the other pairs of the set. An item without pairs gets one more than the last rank.

        Args:
            pair_sets: image and text, int64 `[P, 2]` each, without duplicates within a set.
            ties: "pessimistic" or "optimistic".

        Returns:
            Ranks of images, int64 `[Ni]`, and of texts, `[Nt]`, for each set.
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
                # Reuse the pairs' scores of the first pass: a scorer may not reproduce them to the last bit.
                tile = tile.index_put(self._within(pairs[cells[cell]]), values[cells[cell]])
            return [
                (count, images, texts, *count.ahead(images, texts, block))
                for images, texts, block in self._blocks(cell, tile)
                for count in counts
            ]

        with full_precision(pairs.device):  # a global setting, so outside the threads
            for tile_counts in tile_map(ahead, range(len(self._images_of) * len(self._texts_of)), pairs.device):
                for count, images, texts, image_counts, text_counts in tile_counts:
                    count.add(images, texts, image_counts, text_counts)
        return [count.ranks() for count in counts]

    def _scores(self, pairs: Tensor, keep: int) -> tuple[Tensor, dict[int, Tensor]]:
        """Scores of the given pairs `[P]`, and the first ``keep`` of the tiles computed for them."""
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
        """Group the rows of ``pairs`` by tile."""
        cells = self._image_at[pairs[:, 0]] // self._height * self._across + self._text_at[pairs[:, 1]] // self._width
        order = cells.argsort()
        occupied, sizes = cells[order].unique_consecutive(return_counts=True)
        return dict(zip(occupied.tolist(), order.split(sizes.tolist()), strict=True))

    def _within(self, pairs: Tensor) -> tuple[Tensor, Tensor]:
        return self._image_at[pairs[:, 0]] % self._height, self._text_at[pairs[:, 1]] % self._width

    def _blocks(self, cell: int, tile: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yield images, texts and their scores in a tile, repeating duplicate items."""
        down, across = divmod(cell, self._across)
        images, texts = self._images_of[down], self._texts_of[across]
        if tile.shape == (len(images), len(texts)):
            yield images, texts, tile
            return
        for image_block in images.split(self._side):
            rows = tile[self._image_at[image_block] % self._height]
            for text_block in texts.split(self._side):
                yield image_block, text_block, rows[:, self._text_at[text_block] % self._width]


class _Count:
    """Count the scores that reach the best pair of each image and of each text."""

    def __init__(self, pairs: Tensor, values: Tensor, images: int, texts: int, ties: Ties) -> None:
        self._reach = torch.ge if ties == "pessimistic" else torch.gt
        self._image_best, self._image_ahead = self._start(pairs[:, 0], values, images)
        self._text_best, self._text_ahead = self._start(pairs[:, 1], values, texts)

    def ahead(self, images: Tensor, texts: Tensor, block: Tensor) -> tuple[Tensor, Tensor]:
        """Count the scores of a block `[images, texts]` that reach the best pair of each image and of each text."""
        reached = torch.empty_like(block)  # 0.0 or 1.0: floats sum several times faster than bools
        self._reach(block, self._image_best[images, None], out=reached)
        image_counts = reached.sum(dim=1).long()
        self._reach(block, self._text_best[texts], out=reached)
        return image_counts, reached.sum(dim=0).long()

    def add(self, images: Tensor, texts: Tensor, image_counts: Tensor, text_counts: Tensor) -> None:
        """Add the counts of a block."""
        self._image_ahead[images] += image_counts
        self._text_ahead[texts] += text_counts

    def ranks(self) -> tuple[Tensor, Tensor]:
        """Ranks of the images' best texts and of the texts' best images, from 1."""
        return 1 + self._image_ahead, 1 + self._text_ahead

    def _start(self, items: Tensor, values: Tensor, n: int) -> tuple[Tensor, Tensor]:
        """Best score of each item's pairs, and minus the number of its pairs that ``ahead`` will count."""
        best = torch.full((n,), -torch.inf, device=values.device).scatter_reduce_(0, items, values, "amax")
        return best, -items[self._reach(values, best[items])].bincount(minlength=n)


def _members(place: Tensor, step: int) -> list[Tensor]:
    """Group items by tile: a tile holds ``step`` distinct items, and duplicates share a place."""
    return list(place.argsort(stable=True).split((place // step).bincount().tolist()))
