"""VSE-infinity: tokens pooled by a learned generalised pooling operator on either side."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from itmbench.encoders import Embeddings
from itmbench.encoders.base import Inputs
from itmbench.errors import InputError
from itmbench.losses import InfoNCE, TripletLoss
from itmbench.methods.base import Batch, Matcher
from itmbench.methods.vse_inf.pooling import GeneralizedPooling


class VSEInfinity(Matcher):
    """VSE-infinity (Chen et al., CVPR 2021): projected tokens, generalised pooling, cosine.

    Args:
        dim: size of the common space.
        token_dropout: probability, in training, that a token is left out of its item; at least one stays.
        loss: of the in-batch scores; hardest-negative triplets after a warm-up by default.
        **kwargs: those of ``Matcher``.
    """

    def __init__(
        self,
        dim: int = 256,
        token_dropout: float = 0.2,
        loss: InfoNCE | TripletLoss | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not 0 <= token_dropout < 1:
            raise InputError(f"VSEInfinity: token_dropout is {token_dropout}; give a probability from 0 to below 1")
        self.token_dropout = token_dropout
        self.project_image = nn.Linear(self.image.width, dim)
        self.project_text = nn.Linear(self.text.width, dim)
        self.pool_image, self.pool_text = GeneralizedPooling(), GeneralizedPooling()
        self.loss = TripletLoss(warmup_steps=1000) if loss is None else loss

    def encode_image(self, images: Inputs) -> Embeddings:
        return self._embed(self.project_image, self.pool_image, self.image(images))

    def encode_text(self, tokens: Inputs) -> Embeddings:
        return self._embed(self.project_text, self.pool_text, self.text(tokens))

    def training_loss(self, batch: Batch) -> Tensor:
        image, text, positives = self.encode_pairs(batch)
        return self.loss(self.score(image, text), positives)

    def _embed(self, project: nn.Linear, pool: GeneralizedPooling, items: Embeddings) -> Embeddings:
        assert items.tokens is not None and items.mask is not None
        mask = some_of(items.mask, self.token_dropout) if self.training else items.mask
        return Embeddings(normalize(pool(project(items.tokens), mask), dim=-1))


def some_of(mask: Tensor, dropout: float) -> Tensor:
    """A mask, bool `[B, N]`, less a random share of its tokens; at least one of an item's tokens stays."""
    draws = torch.rand(mask.shape, device=mask.device).masked_fill(~mask, -1.0)
    return mask & ((draws >= dropout) | (draws == draws.amax(1, keepdim=True)))
