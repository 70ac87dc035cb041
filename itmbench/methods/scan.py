"""SCAN: words attend to regions, or regions to words, and are compared with what they attended to."""

from typing import Any, Literal

import torch
from torch import Tensor, nn

from itmbench.encoders import Embeddings
from itmbench.errors import InputError
from itmbench.methods.base import Modality
from itmbench.methods.cross_attention import (
    gram,
    project_tokens,
    regions_for_words,
    relations,
    scan_attention,
    zero_padded_tokens,
)
from itmbench.methods.explained import Attended
from itmbench.methods.losses import InfoNCE, TripletLoss
from itmbench.methods.token_matcher import TokenMatcher, without_padding

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
        self.sharpness = _SHARPNESS if sharpness is None else dict.fromkeys(_SHARPNESS, sharpness)
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

    def attended(self, image: Embeddings, text: Embeddings) -> Attended:
        """The relevance of each word of one text to one image, and the attention of each word to the regions.

        Raises:
            InputError: words do not attend to regions, or the score is not the mean of their relevances.
        """
        if self.direction == "i2t" or self.aggregation != "mean":
            raise InputError(
                f"explain: with direction {self.direction} and aggregation {self.aggregation}, the score is not a mean "
                "over words that attend to regions"
            )
        assert image.mask is not None and text.mask is not None
        text = without_padding(text, int(text.mask.sum()))
        relevances, weights = self._relevances(image, self.within(image), text, self.sharpness["t2i"])
        found, regions = relevances[0, 0], weights[0, image.mask[0], 0].T
        paths = {"words": float(found.mean())}
        if self.direction == "both":
            paths = {"regions": float(self.score(image, text)) - paths["words"], **paths}
        shares = torch.full_like(found, 1 / len(found))
        return Attended(paths, 1.0, shares, found, torch.zeros_like(found), regions / regions.sum(1, keepdim=True))

    def _attend(self, attended: Embeddings, attended_gram: Tensor, attending: Embeddings, sharpness: float) -> Tensor:
        """Scores `[A, F]` of A attended items, with their Gram matrices, and F attending items."""
        assert attending.mask is not None
        return self._aggregate(self._relevances(attended, attended_gram, attending, sharpness)[0], attending.mask)

    def _relevances(
        self, attended: Embeddings, attended_gram: Tensor, attending: Embeddings, sharpness: float
    ) -> tuple[Tensor, Tensor]:
        """Relevances `[A, F, M]` of attending tokens, and their attention, before it is normalised, `[A, N, F, M]`."""
        related = relations(zero_padded_tokens(attended), zero_padded_tokens(attending))  # [A, N, F, M]
        weights = scan_attention(related, sharpness)
        context = regions_for_words(weights, weights * related, attended_gram)
        return context.mean_product() / context.norm().clamp(min=_MIN_NORM), weights

    def _aggregate(self, relevances: Tensor, mask: Tensor) -> Tensor:
        """Aggregate `[A, F, M]` (0 for padding) under a mask, bool `[F, M]`, to `[A, F]`; 0 without tokens."""
        if self.aggregation == "mean":
            return relevances.sum(2) / mask.sum(1).clamp(min=1)
        logits = (self.lse_sharpness * relevances).masked_fill(~mask, -torch.inf)
        return (logits.logsumexp(2) / self.lse_sharpness).masked_fill(~mask.any(1), 0.0)
