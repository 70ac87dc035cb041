"""What encoders and methods return: one pooled vector and, where a scorer needs them, tokens."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from itmbench.errors import InputError


@dataclass
class Embeddings:
    """Encoded items of one modality.

    Args:
        pooled: one vector an item `[B, D]`.
        tokens: its parts (patches, regions, words) `[B, N, D]`; None if the scorer needs only ``pooled``.
        mask: true where a token is real `[B, N]`, bool; None together with ``tokens``.
        words: the word of each token, as a row of the encoder's vocabulary, int64 `[B, N]`; -1 for padding and for
            marks such as [CLS]; None if tokens are not words.
    """

    pooled: Tensor
    tokens: Tensor | None = None
    mask: Tensor | None = None
    words: Tensor | None = None

    def __len__(self) -> int:
        return len(self.pooled)

    def __getitem__(self, rows: slice | Tensor) -> Self:
        return self._map(lambda part: part[rows.to(part.device) if isinstance(rows, Tensor) else rows])

    def to(self, device: torch.device | str) -> Self:
        return self._map(lambda part: part.to(device, non_blocking=part.is_pinned()))

    def on_one_device(self) -> Self:
        """The same with all tensors on the device of the pooled vectors; tokens may be kept in host memory."""
        return self.to(self.pooled.device)

    def detach(self) -> Self:
        """The same items without gradients."""
        return self._map(Tensor.detach)

    def select(self, rows: Tensor) -> "Items":
        """Some rows, whose tokens are copied only as they are sliced."""
        return self[rows] if self.tokens is None else Selected(self, rows)

    def _map(self, change: Callable[[Tensor], Tensor]) -> Self:
        parts = (self.tokens, self.mask, self.words)
        tokens, mask, words = (None if part is None else change(part) for part in parts)
        return replace(self, pooled=change(self.pooled), tokens=tokens, mask=mask, words=words)

    def compact(self) -> "Embeddings":
        """The same with tokens in half precision if they are on a GPU, where they are kept until they are scored."""
        if self.tokens is None or self.tokens.device.type == "cpu":
            return self
        return replace(self, tokens=self.tokens.half())

    def pad(self, length: int) -> "Embeddings":
        """The same with token lists of the given length, filled up with masked zeros."""
        if self.tokens is None or self.mask is None or self.tokens.shape[1] == length:
            return self
        missing = length - self.tokens.shape[1]
        return Embeddings(
            self.pooled,
            torch.cat([self.tokens, self.tokens.new_zeros(len(self), missing, self.tokens.shape[2])], dim=1),
            torch.cat([self.mask, self.mask.new_zeros(len(self), missing)], dim=1),
            None if self.words is None else torch.nn.functional.pad(self.words, (0, missing), value=-1),
        )

    @staticmethod
    def cat(parts: Sequence["Embeddings"]) -> "Embeddings":
        """One table of all the parts, in order; shorter token lists are padded to the longest."""
        longest = max((part.tokens.shape[1] for part in parts if part.tokens is not None), default=0)
        padded = [part.pad(longest) for part in parts]
        tokens = [part.tokens for part in padded if part.tokens is not None]
        masks = [part.mask for part in padded if part.mask is not None]
        words = [part.words for part in padded if part.words is not None]
        return Embeddings(
            torch.cat([part.pooled for part in parts]),
            torch.cat(tokens) if tokens else None,
            torch.cat(masks) if masks else None,
            torch.cat(words) if words else None,
        )


def require_embeddings(items: Embeddings, method: object) -> Embeddings:
    """What a method, perhaps somebody else's, returned for a batch; an InputError if it is something else."""
    if isinstance(items, Embeddings):
        return items
    raise InputError(
        f"{type(method).__name__}: embed, encode_image and encode_text must return Embeddings, not "
        f"{type(items).__name__}; for vectors [B, D] that is itmbench.Embeddings(vectors)"
    )


class Selected:
    """Some rows, int64 `[n]`, of a table of embeddings with tokens, which are copied slice by slice."""

    def __init__(self, table: Embeddings, rows: Tensor) -> None:
        self._table, self._rows = table, rows
        self.pooled = table.pooled[rows.to(table.pooled.device)]

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, rows: slice | Tensor) -> Embeddings:
        return self._table[self._rows[rows if isinstance(rows, slice) else rows.to(self._rows.device)]]

    def on_one_device(self) -> Embeddings:
        """All selected rows, as ``Embeddings.on_one_device``."""
        return self[:].on_one_device()

    def select(self, rows: Tensor) -> "Selected":
        """As ``Embeddings.select``."""
        return Selected(self._table, self._rows[rows.to(self._rows.device)])


Items = Embeddings | Selected
"""What is evaluated: it has ``pooled`` and a length, and slices of it are embeddings."""


class ImageEmbeddings(Embeddings):
    """Embeddings that are known to be of images."""


class TextEmbeddings(Embeddings):
    """Embeddings that are known to be of texts."""
