"""Dual encoder: the cosine of two pooled, linearly projected vectors. Every other method is compared with it."""

from typing import Any

from torch import nn
from torch.nn.functional import normalize

from itmbench.encoders import Embeddings
from itmbench.methods.base import Modality
from itmbench.methods.hash_codes import HashMatcher
from itmbench.methods.losses import InfoNCE, TripletLoss


class DualEncoder(HashMatcher):
    """Project the pooled image and text vectors into one space and compare them by cosine.

    With InfoNCE this is how CLIP (Radford et al., ICML 2021) trains; with ``TripletLoss`` it is how VSE++ (Faghri et
    al., BMVC 2018) does.

    Args:
        dim: D, size of the common space.
        loss: loss on the in-batch scores; InfoNCE by default.
        **kwargs: arguments of ``HashMatcher``.
    """

    reads_tokens = False

    def __init__(self, dim: int = 256, loss: InfoNCE | TripletLoss | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.project = self.per_modality(lambda width: nn.Linear(width, dim))
        self.hash_head = self.make_hash_head(dim)
        self.loss = InfoNCE() if loss is None else loss

    def embed(self, items: Embeddings, modality: Modality) -> Embeddings:
        return Embeddings(normalize(self.project[modality](items.pooled), dim=-1))
