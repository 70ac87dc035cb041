"""VSE++: pool projected tokens by mean or maximum and train with the hardest negatives of the batch."""

from typing import Any, Literal

from torch import Tensor, nn
from torch.nn.functional import normalize

from itmbench.encoders import Embeddings, masked_max, masked_mean
from itmbench.encoders.base import Inputs
from itmbench.methods.base import Batch, Matcher
from itmbench.methods.losses import InfoNCE, TripletLoss

Pooling = Literal["mean", "max"]


class VSE(Matcher):
    """VSE++ (Faghri et al., BMVC 2018) on tokens: project, pool, compare by cosine.

    Args:
        dim: D, size of the common space.
        pooling: how to pool the projected tokens of an item, per dimension.
        loss: loss on the in-batch scores; by default the hardest-negative triplet loss after a warm-up.
        **kwargs: arguments of ``Matcher``.
    """

    def __init__(
        self, dim: int = 256, pooling: Pooling = "mean", loss: InfoNCE | TripletLoss | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.pooling = pooling
        self.project_image = nn.Linear(self.image.width, dim)
        self.project_text = nn.Linear(self.text.width, dim)
        self.loss = TripletLoss(warmup_steps=1000) if loss is None else loss

    def encode_image(self, images: Inputs) -> Embeddings:
        return self._embed(self.project_image, self.image(images))

    def encode_text(self, tokens: Inputs) -> Embeddings:
        return self._embed(self.project_text, self.text(tokens))

    def training_loss(self, batch: Batch) -> Tensor:
        image, text, positives = self.encode_pairs(batch)
        return self.loss(self.score(image, text), positives)

    def _embed(self, project: nn.Linear, items: Embeddings) -> Embeddings:
        assert items.tokens is not None and items.mask is not None
        pool = masked_mean if self.pooling == "mean" else masked_max
        return Embeddings(normalize(pool(project(items.tokens), items.mask), dim=-1))
