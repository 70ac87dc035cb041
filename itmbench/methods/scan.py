"""SCAN: words attend to regions, or regions to words, and are compared with what they attended to."""

from typing import Any, Literal

import torch
from torch import Tensor, nn

from itmbench.encoders import Embeddings
from itmbench.methods.base import Modality
from itmbench.methods.cross_attention import (
    gram,
    project_tokens,
    regions_for_words,
    relations,
    scan_attention,
    zero_padded_tokens,
)
from itmbench.methods.losses import InfoNCE, TripletLoss
from itmbench.methods.token_matcher import TokenMatcher

_SHARPNESS = {"t2i": 9.0, "i2t": 4.0}
# The direction of a shorter mean of unit tokens is rounding noise.
_MIN_NORM = 1e-3


class SCAN(TokenMatcher):
    """Stacked cross attention (Lee et al., ECCV 2018), computed exactly without forming a context.

    Args:
        dim: D, size of the tokens and of the common space.
        direction: ``t2i`` lets words attend to regions, ``i2t`` regions to words; ``both`` adds the two scores.
        aggregation: how to combine the relevances of the attending tokens: mean, or log-sum-exp.
        sharpness: lambda_1, inverse temperature of the attention; by default 9 for words and 4 for regions.
        lse_sharpness: lambda_2, factor on the relevances in ``lse``.
        loss: loss on the in-batch scores; by default the hardest-negative triplet loss after a warm-up.
        **kwargs: arguments of ``Matcher``.
    """

    def __init__(
        self,
        dim: int = 256,
        direction: Literal["t2i", "i2t", "both"] = "t2i",
        aggregation: Literal["mean", "lse"] = "mean",
        sharpness: float | None = None,
        lse_sharpness: float = 6.0,
        loss: InfoNCE | TripletLoss | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.direction, self.aggregation, self.lse_sharpness = direction, aggregation, lse_sharpness
        self.sharpness = {each: default if sharpness is None else sharpness for each, default in _SHARPNESS.items()}
        self.project = self.per_modality(lambda width: nn.Linear(width, dim))
        self.loss = TripletLoss(warmup_steps=1000) if loss is None else loss

    def embed(self, items: Embeddings, modality: Modality) -> Embeddings:
        return project_tokens(self.project[modality], items)

    def within(self, items: Embeddings) -> Tensor:
        """Gram matrices `[B, N, N]` in full precision: in half, the two sides of a cosine would round apart."""
        with torch.autocast(items.pooled.device.type, enabled=False):
            return gram(zero_padded_tokens(items))

    def score_block(self, image: Embeddings, text: Embeddings, within_image: Tensor, within_text: Tensor) -> Tensor:
        with torch.autocast(image.pooled.device.type, enabled=False):
            scores = []
            if self.direction != "i2t":
                scores.append(self._attend(image, within_image, text, self.sharpness["t2i"]))
            if self.direction != "t2i":
                scores.append(self._attend(text, within_text, image, self.sharpness["i2t"]).T)
            return torch.stack(scores).sum(0)

    def _attend(self, attended: Embeddings, attended_gram: Tensor, attending: Embeddings, sharpness: float) -> Tensor:
        """Scores `[A, F]` of A attended items, with their Gram matrices, and F attending items."""
        assert attending.mask is not None
        related = relations(zero_padded_tokens(attended), zero_padded_tokens(attending))  # [A, N, F, M]
        weights = scan_attention(related, sharpness)
        context = regions_for_words(weights, weights * related, attended_gram)
        return self._aggregate(context.mean_product() / context.norm().clamp(min=_MIN_NORM), attending.mask)

    def _aggregate(self, relevances: Tensor, mask: Tensor) -> Tensor:
        """Aggregate `[A, F, M]` (0 for padding) under a mask, bool `[F, M]`, to `[A, F]`; 0 without tokens."""
        if self.aggregation == "mean":
            return relevances.sum(2) / mask.sum(1).clamp(min=1)
        logits = (self.lse_sharpness * relevances).masked_fill(~mask, -torch.inf)
        return (logits.logsumexp(2) / self.lse_sharpness).masked_fill(~mask.any(1), 0.0)
