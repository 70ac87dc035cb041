"""Dual encoder: the cosine of two pooled, linearly projected vectors. Every other method is compared with it."""

from typing import Any

from torch import Tensor, nn
from torch.nn.functional import normalize

from itmbench.encoders import Embeddings
from itmbench.encoders.base import Inputs
from itmbench.methods.base import Batch, Matcher
from itmbench.methods.losses import InfoNCE, TripletLoss


class DualEncoder(Matcher):
    """Project the pooled image and text vectors into one space and compare them by cosine.

    With InfoNCE this is how CLIP (Radford et al., ICML 2021) trains; with ``TripletLoss`` it is how VSE++ (Faghri et
    al., BMVC 2018) does.

    Args:
        dim: D, size of the common space.
        loss: loss on the in-batch scores; InfoNCE by default.
        **kwargs: arguments of ``Matcher``.
    """

    def __init__(self, dim: int = 256, loss: InfoNCE | TripletLoss | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.project_image = nn.Linear(self.image.width, dim)
        self.project_text = nn.Linear(self.text.width, dim)
        self.loss = InfoNCE() if loss is None else loss

    def encode_image(self, images: Inputs) -> Embeddings:
        return Embeddings(normalize(self.project_image(self.image(images).pooled), dim=-1))

    def encode_text(self, tokens: Inputs) -> Embeddings:
        return Embeddings(normalize(self.project_text(self.text(tokens).pooled), dim=-1))

    def training_loss(self, batch: Batch) -> Tensor:
        image, text, positives = self.encode_pairs(batch)
        return self.loss(self.score(image, text), positives)
