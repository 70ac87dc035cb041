"""Score all images against all texts in tiles, and rank given pairs in both directions in one pass."""

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from itmbench.encoders.embeddings import Items
from itmbench.evaluation.parallel import tile_map
from itmbench.evaluation.places import Places
from itmbench.evaluation.ranking import Ties
from itmbench.evaluation.ranks import by_rank, summed
from itmbench.evaluation.scoring import Name, Scorer, comparable, distinct, full_precision, score

Sides = tuple[Tensor, Tensor]
"""One tensor for each direction: i2t, t2i."""

# Scores kept from the first pass, over tiles that hold pairs, for the second (128 MiB); texts sorted by image have few.
_KEPT = 1 << 25


class Grid:
    """Scores of all image-text pairs, computed tile by tile and discarded; ranks share the tiles.

    Args:
        images: embeddings `[Ni]`.
        texts: embeddings `[Nt]`; cheapest if sorted by image.
        scorer: (images, texts) -> scores; None is the cosine of the pooled vectors.
        name: names an image row in errors.
    """

    def __init__(self, images: Items, texts: Items, scorer: Scorer | None, name: Name) -> None:
        images, texts, self._scorer, area = comparable(images, texts, scorer)
        self._name = name
        self._images, self._image_at = distinct(images)
        self._texts, self._text_at = distinct(texts)
        # As many tiles down as across: with texts sorted by image, the pairs lie near the diagonal.
        square = math.isqrt(math.ceil(area * len(self._images) / len(self._texts)))
        self._height = _even(max(1, min(square, area, len(self._images))))
        self._width = _even(max(1, min(area // self._height, len(self._texts))))
        self._across = math.ceil(len(self._texts) / self._width)
        self._cells = math.ceil(len(self._images) / self._height) * self._across
        self._side = math.isqrt(area)
        self._images_of = _members(self._image_at, self._height)
        self._texts_of = _members(self._text_at, self._width)

    def scores(self, pairs: Tensor) -> Tensor:
        """Score pairs (image and text, int64 `[P, 2]`), float32 `[P]`, computing only the tiles that hold them."""
        return self._scores(pairs, keep=0)[0]

    def ranks(self, pairs: Tensor, ties: Ties) -> Sides:
        """Rank every image's best text and every text's best image among the given pairs.

        Ranks start at 1 and skip the other pairs. An item without pairs gets one more than the last rank.

        Args:
            pairs: image and text, int64 `[P, 2]`, without duplicates.
            ties: "pessimistic" or "optimistic".

        Returns:
            Ranks of images, int64 `[Ni]`, and of texts, `[Nt]`.
        """
        return self.ranks_and_places(pairs, None, ties)[0]

    def ranks_and_places(self, pairs: Tensor, matches: Sides | None, ties: Ties) -> tuple[Sides, Sides]:
        """Rank pairs as ``ranks`` does, and find the places of other pairs, from the same scores.

        Args:
            pairs: as for ``ranks``.
            matches: image and text, int64 `[M, 2]`, for each direction: those whose place in the ranking of the image
                is wanted, and those whose place in the ranking of the text is; None for none.
            ties: "pessimistic" or "optimistic".

        Returns:
            The ranks, and the places of the matches, from 1, int64 `[M]` for each direction.
        """
        matches = matches or (pairs[:0], pairs[:0])
        wanted = torch.cat([pairs, *matches])
        values, kept = self._scores(wanted, keep=_KEPT // (self._height * self._width))
        of_pairs, of_i2t, of_t2i = values.split([len(pairs), *map(len, matches)])
        images, texts = len(self._image_at), len(self._text_at)
        best = _Best(pairs, of_pairs, images, texts, ties)
        i2t, t2i = Places(matches[0][:, 0], of_i2t, images, ties), Places(matches[1][:, 1], of_t2i, texts, ties)
        counters, cells = (best, i2t, t2i), self._by_cell(wanted)

        def ahead(cell: int) -> list[tuple[tuple[Tensor, ...], ...]]:
            tile = kept.pop(cell) if cell in kept else self._tile(cell)
            if cell in cells:
                # Reuse the pairs' scores of the first pass: a scorer may not reproduce them to the last bit.
                tile = tile.index_put(self._within(wanted[cells[cell]]), values[cells[cell]])
            return [
                (best.ahead(*block), i2t.ahead(block[0], block[2]), t2i.ahead(block[1], block[2].T))
                for block in self._blocks(cell, tile)
            ]

        def counted(share: Sequence[int]) -> list[Tensor]:
            for blocks in tile_map(ahead, share, pairs.device):
                for counts in blocks:
                    for counter, count in zip(counters, counts, strict=True):
                        counter.add(*count)  # type: ignore[attr-defined]
            return [tally.cpu() for counter in counters for tally in counter.tallies]

        with full_precision(pairs.device):  # a global setting, so outside the threads
            totals = iter(summed(by_rank(counted, self._cells)))
        for counter in counters:
            for tally in counter.tallies:
                tally.copy_(next(totals))
        return best.ranks(), (i2t.places(), t2i.places())

    def _scores(self, pairs: Tensor, keep: int) -> tuple[Tensor, dict[int, Tensor]]:
        """Scores of the given pairs `[P]`, and the first ``keep`` of the tiles computed for them."""
        kept: dict[int, Tensor] = {}
        by_cell = self._by_cell(pairs)

        def scored(share: Sequence[int]) -> list[Tensor]:
            values = torch.zeros(len(pairs), device=pairs.device)
            for cell in filter(share.__contains__, by_cell):
                tile, members = self._tile(cell), by_cell[cell]
                values[members] = tile[self._within(pairs[members])]
                if len(kept) < keep:
                    kept[cell] = tile
            return [values.cpu()]

        [values] = summed(by_rank(scored, self._cells))
        return values.to(pairs.device), kept

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


class _Best:
    """Count the scores that reach the best pair of each image and of each text."""

    def __init__(self, pairs: Tensor, values: Tensor, images: int, texts: int, ties: Ties) -> None:
        self._reach = torch.ge if ties == "pessimistic" else torch.gt
        self._image_best, self._image_ahead = self._start(pairs[:, 0], values, images)
        self._text_best, self._text_ahead = self._start(pairs[:, 1], values, texts)
        self.tallies = torch.zeros_like(self._image_ahead), torch.zeros_like(self._text_ahead)

    def ahead(self, images: Tensor, texts: Tensor, block: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Count the scores of a block `[images, texts]` that reach the best pair of each image and of each text."""
        reached = torch.empty_like(block)  # 0.0 or 1.0: floats sum several times faster than bools
        self._reach(block, self._image_best[images, None], out=reached)
        image_counts = reached.sum(dim=1).long()
        self._reach(block, self._text_best[texts], out=reached)
        return images, texts, image_counts, reached.sum(dim=0).long()

    def add(self, images: Tensor, texts: Tensor, image_counts: Tensor, text_counts: Tensor) -> None:
        """Add what ``ahead`` returned."""
        self.tallies[0][images] += image_counts
        self.tallies[1][texts] += text_counts

    def ranks(self) -> tuple[Tensor, Tensor]:
        """Ranks of the images' best texts and of the texts' best images, from 1."""
        return 1 + self._image_ahead + self.tallies[0], 1 + self._text_ahead + self.tallies[1]

    def _start(self, items: Tensor, values: Tensor, n: int) -> tuple[Tensor, Tensor]:
        """Best score of each item's pairs, and minus the number of its pairs that ``ahead`` will count."""
        best = torch.full((n,), -torch.inf, device=values.device).scatter_reduce_(0, items, values, "amax")
        return best, -items[self._reach(values, best[items])].bincount(minlength=n)


def _even(side: int) -> int:
    """A side of a tile as a multiple of 64: a matrix product of 2,294 columns takes 1.4 times one of 2,304."""
    return side - side % 64 if side > 64 else side


def _members(place: Tensor, step: int) -> list[Tensor]:
    """Group items by tile: a tile holds ``step`` distinct items, and duplicates share a place."""
    return list(place.argsort(stable=True).split((place // step).bincount().tolist()))
