"""A table that collects encoded items for evaluation."""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from itmbench.encoders.embeddings import Embeddings


class EmbeddingTable:
    """Embeddings of some corpus rows, written batch by batch, in any order, into memory that is allocated once.

    Pooled vectors stay on the device of the batches. Tokens are many times larger: they are kept in host memory, pinned
    if the batches are on a GPU, and a scorer fetches them tile by tile. A batch with longer token lists than any before
    it makes the table grow, which copies it.

    Args:
        rows: corpus rows of one modality, distinct.
        tokens_on: device of the tokens, if not host memory.
    """

    def __init__(self, rows: NDArray[np.int64], tokens_on: torch.device | None = None) -> None:
        self._tokens_on = torch.device("cpu") if tokens_on is None else tokens_on
        self._place = torch.full((int(rows.max()) + 1,), -1)
        self._place[torch.from_numpy(rows)] = torch.arange(len(rows))
        self._written = torch.zeros(len(rows), dtype=torch.bool)
        self._table: Embeddings | None = None

    def __len__(self) -> int:
        return len(self._written)

    @property
    def missing(self) -> int:
        """Number of rows that were not written."""
        return len(self) - int(self._written.sum())

    def append(self, batch: tuple[Tensor, Embeddings]) -> None:
        """Write corpus rows `[B]` and their embeddings; of a row that comes twice, the first counts."""
        index, items = batch
        known = index.cpu().clamp(max=len(self._place) - 1)
        place = self._place[known].masked_fill(known != index.cpu(), -1)
        _, first = np.unique(place.numpy(), return_index=True)
        taken = torch.from_numpy(np.sort(first))
        taken = taken[place[taken] >= 0]
        taken = taken[~self._written[place[taken]]]
        self._make_room(items)
        assert self._table is not None
        place, items = place[taken], items[taken]
        for kept, given in zip(_parts(self._table), _parts(items), strict=True):
            rows = place.to(kept.device)
            if kept.ndim > 1 and kept.shape[1] > given.shape[1]:
                kept = kept[:, : given.shape[1]]
            kept[rows] = given.to(kept.device)
        self._written[place] = True

    def embeddings(self) -> Embeddings:
        """The rows in order, without a copy; what was not written is 0."""
        assert self._table is not None
        return self._table

    def _make_room(self, items: Embeddings) -> None:
        """Allocate the table for items like these, or longer token lists."""
        old, tokens = self._table, items.tokens
        if old is not None and (tokens is None or old.tokens is None or tokens.shape[1] <= old.tokens.shape[1]):
            return
        pooled = items.pooled.new_zeros(len(self), items.pooled.shape[1]) if old is None else old.pooled
        waiting = (self._waiting(part, fill) for part, fill in ((tokens, 0), (items.mask, 0), (items.words, -1)))
        self._table = Embeddings(pooled, *waiting)
        if old is not None:
            for kept, before in zip(_parts(self._table), _parts(old), strict=True):
                kept[:, : before.shape[1]] = before

    def _waiting(self, part: Tensor | None, fill: int) -> Tensor | None:
        """Memory for a part of all items like this one."""
        if part is None:
            return None
        pinned = self._tokens_on.type == "cpu" and part.device.type == "cuda"
        size, kind = (len(self), *part.shape[1:]), part.dtype
        rows = torch.zeros(size, dtype=kind, device=self._tokens_on, pin_memory=pinned)  # untouched zeros are free
        return rows.fill_(fill) if fill else rows


def _parts(items: Embeddings) -> Iterator[Tensor]:
    yield from (part for part in (items.pooled, items.tokens, items.mask, items.words) if part is not None)
