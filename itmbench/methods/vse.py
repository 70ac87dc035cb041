"""VSE++: pool projected tokens by mean or maximum and train with the hardest negatives of the batch."""

from typing import Any, Literal

from torch import nn
from torch.nn.functional import normalize

from itmbench.encoders import Embeddings, masked_max, masked_mean
from itmbench.methods.base import Matcher, Modality
from itmbench.methods.losses import InfoNCE, TripletLoss


class VSE(Matcher):
    """VSE++ (Faghri et al., BMVC 2018) on tokens: project, pool, compare by cosine.

    Args:
        dim: D, size of the common space.
        pooling: how to pool the projected tokens of an item, per dimension.
        loss: loss on the in-batch scores; by default the hardest-negative triplet loss after a warm-up.
        **kwargs: arguments of ``Matcher``.
    """

    def __init__(
        self,
        dim: int = 256,
        pooling: Literal["mean", "max"] = "mean",
        loss: InfoNCE | TripletLoss | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.pooling = pooling
        self.project = self.per_modality(lambda width: nn.Linear(width, dim))
        self.loss = TripletLoss(warmup_steps=1000) if loss is None else loss

    def embed(self, items: Embeddings, modality: Modality) -> Embeddings:
        assert items.tokens is not None and items.mask is not None
        pool = masked_mean if self.pooling == "mean" else masked_max
        return Embeddings(normalize(pool(self.project[modality](items.tokens), items.mask), dim=-1))
