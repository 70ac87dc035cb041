"""The control for every method with tokens: a dual encoder that pools by the encoder and by the maximum over tokens."""

import copy
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from itmbench.encoders import Embeddings, masked_max
from itmbench.errors import InputError
from itmbench.methods.base import Batch, Matcher, Modality
from itmbench.methods.losses import InfoNCE, TripletLoss, side_by_side


class PooledMax(Matcher):
    """Project the pooled vector and the tokens, add the maximum over the tokens, and compare by cosine.

    The least that a method which relates tokens must beat. With several heads it is the control for methods of several
    paths: each head has its own layers, loss and temperature and learns as if it were alone, and their logits are added
    at test.

    Args:
        dim: D, size of the common space of a head.
        heads: number of heads.
        loss: loss on the in-batch scores of each head; InfoNCE by default.
        **kwargs: arguments of ``Matcher``.

    Raises:
        InputError: ``heads`` is below 1.
    """

    def __init__(
        self, dim: int = 256, heads: int = 1, loss: InfoNCE | TripletLoss | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        if heads < 1:
            raise InputError(f"PooledMax: heads is {heads}; give 1 or more")
        self.heads = self.per_modality(lambda width: nn.ModuleList(MaxPooling(width, dim) for _ in range(heads)))
        self.loss = InfoNCE() if loss is None else loss
        self.losses = nn.ModuleList(copy.deepcopy(self.loss) for _ in range(heads - 1))  # of the further heads

    def embed(self, items: Embeddings, modality: Modality) -> Embeddings:
        """The unit vectors of all heads side by side, pooled `[B, H D]`, scaled so that products add the logits."""
        heads = cast(nn.ModuleList, self.heads[modality])
        vectors = [normalize(head(items), dim=-1) for head in heads]
        return Embeddings(side_by_side(vectors, [self.loss, *self.losses]))

    def training_loss(self, batch: Batch) -> Tensor:
        """The sum of the heads' losses, each on its own cosines."""
        image, text, positives = self.encode_pairs(batch)
        parts = zip(*(items.pooled.chunk(1 + len(self.losses), dim=1) for items in (image, text)), strict=True)
        losses = zip([self.loss, *self.losses], parts, strict=True)
        return torch.stack([loss(self.score(*map(Embeddings, pair)), positives) for loss, pair in losses]).sum()


class MaxPooling(nn.Module):
    """An encoder's pooled vector plus the maximum over its tokens, each after a linear layer of its own."""

    def __init__(self, width: int, dim: int) -> None:
        super().__init__()
        self.pooled, self.tokens = nn.Linear(width, dim), nn.Linear(width, dim)

    def forward(self, items: Embeddings) -> Tensor:
        """Pool an item: pooled `[B, W]` and tokens `[B, N, W]` under their mask -> `[B, D]`."""
        assert items.tokens is not None and items.mask is not None
        return self.pooled(items.pooled) + masked_max(self.tokens(items.tokens), items.mask)
