"""SCAN: words attend to regions, or regions to words, and each is compared with what it attended to."""

from typing import Any, Literal

import torch
from torch import Tensor, nn

from itmbench.encoders import Embeddings
from itmbench.encoders.base import Inputs
from itmbench.methods.base import Batch
from itmbench.methods.cross_attention import attention, gram, real_tokens, regions_for_words, relations, unit_tokens
from itmbench.methods.losses import InfoNCE, TripletLoss
from itmbench.methods.token_matcher import TokenMatcher

_SHARPNESS = {"t2i": 9.0, "i2t": 4.0}
# A mean of unit tokens that is shorter than this is rounding noise, and so would be its direction.
_SHORTEST = 1e-3


class SCAN(TokenMatcher):
    """Stacked cross attention (Lee et al., ECCV 2018), exactly, without forming a context.

    Args:
        dim: size of the tokens and of the common space.
        direction: ``t2i`` lets words attend to regions, ``i2t`` regions to words.
        aggregation: of the relevances of the attending tokens: their mean, or the log of the sum of their exponentials.
        sharpness: inverse temperature of the attention (lambda_1); by default 9 for ``t2i`` and 4 for ``i2t``.
        lse_sharpness: what relevances are multiplied by in ``lse`` (lambda_2).
        loss: of the in-batch scores; hardest-negative triplets after a warm-up by default.
        **kwargs: those of ``Matcher``.
    """

    def __init__(
        self,
        dim: int = 256,
        direction: Literal["t2i", "i2t"] = "t2i",
        aggregation: Literal["mean", "lse"] = "mean",
        sharpness: float | None = None,
        lse_sharpness: float = 6.0,
        loss: InfoNCE | TripletLoss | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.direction, self.aggregation, self.lse_sharpness = direction, aggregation, lse_sharpness
        self.sharpness = _SHARPNESS[direction] if sharpness is None else sharpness
        self.project_image = nn.Linear(self.image.width, dim)
        self.project_text = nn.Linear(self.text.width, dim)
        self.loss = TripletLoss(warmup_steps=1000) if loss is None else loss

    def encode_image(self, images: Inputs) -> Embeddings:
        return unit_tokens(self.project_image, self.image(images))

    def encode_text(self, tokens: Inputs) -> Embeddings:
        return unit_tokens(self.project_text, self.text(tokens))

    def within(self, items: Embeddings) -> Tensor:
        """Gram matrices `[B, N, N]`, in full precision: half would round the two sides of a cosine apart."""
        with torch.autocast(items.pooled.device.type, enabled=False):
            return gram(real_tokens(items))

    def score_block(self, image: Embeddings, text: Embeddings, within_image: Tensor, within_text: Tensor) -> Tensor:
        with torch.autocast(image.pooled.device.type, enabled=False):
            if self.direction == "t2i":
                return self._attended(image, within_image, text)
            return self._attended(text, within_text, image).T

    def training_loss(self, batch: Batch) -> Tensor:
        image, text, positives = self.encode_pairs(batch)
        return self.loss(self.score(image, text), positives)

    def _attended(self, own: Embeddings, within: Tensor, foreign: Embeddings) -> Tensor:
        """Scores `[A, F]` of A items, with their Gram matrices, that the tokens of F items attend to."""
        assert foreign.mask is not None
        related = relations(real_tokens(own), real_tokens(foreign))  # [A, N, F, M]
        weights = attention(related, self.sharpness)
        context = regions_for_words(weights, weights * related, within)
        return self._aggregate(context.mean_product() / context.norm().clamp(min=_SHORTEST), foreign.mask)

    def _aggregate(self, relevances: Tensor, mask: Tensor) -> Tensor:
        """`[A, F, M]`, 0 for padding, and bool `[F, M]` -> `[A, F]`; 0 for a foreign item without a real token."""
        if self.aggregation == "mean":
            return relevances.sum(2) / mask.sum(1).clamp(min=1)
        logits = (self.lse_sharpness * relevances).masked_fill(~mask, -torch.inf)
        return (logits.logsumexp(2) / self.lse_sharpness).masked_fill(~mask.any(1), 0.0)
