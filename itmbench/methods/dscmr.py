"""DSCMR (Zhen et al., CVPR 2019): one classifier for both modalities, likelihood of shared labels, no modality gap."""

from typing import Any

import torch
from torch import Tensor, nn

from itmbench.encoders import Embeddings
from itmbench.encoders.base import Inputs
from itmbench.methods.base import Batch, Matcher
from itmbench.methods.distributed import gather_rows
from itmbench.methods.losses import PairLikelihood, label_error


class DSCMR(Matcher):
    """Two networks with a last layer and a label classifier in common; the data must have labels.

    Args:
        dim: size of the common space.
        alpha: factor on the likelihood that pairs within and across the modalities share a label.
        beta: factor on the distance between an image and its text.
        **kwargs: those of ``Matcher``.
    """

    def __init__(self, dim: int = 256, alpha: float = 1e-3, beta: float = 0.1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.dim, self.alpha, self.beta = dim, alpha, beta
        self.project_image = nn.Sequential(nn.Linear(self.image.width, dim), nn.ReLU())
        self.project_text = nn.Sequential(nn.Linear(self.text.width, dim), nn.ReLU())
        self.common = nn.Linear(dim, dim)
        self.classifier: nn.Linear | None = None  # once the number of labels is known
        self.likelihood = PairLikelihood(scale=0.5)

    def setup(self, stage: str) -> None:
        labels = self.training_labels()
        super().setup(stage)
        if self.classifier is None:
            self.classifier = nn.Linear(self.dim, labels.shape[1])

    def encode_image(self, images: Inputs) -> Embeddings:
        return Embeddings(self.common(self.project_image(self.image(images).pooled)))

    def encode_text(self, tokens: Inputs) -> Embeddings:
        return Embeddings(self.common(self.project_text(self.text(tokens).pooled)))

    def training_loss(self, batch: Batch) -> Tensor:
        image, text, positives = self.encode_pairs(batch)
        labels = gather_rows(self, batch["labels"])
        assert self.classifier is not None
        wrong = label_error(self.classifier(image.pooled), labels) + label_error(self.classifier(text.pooled), labels)
        pairs = ((image, image), (text, text), (image, text))
        unlikely = sum(self.likelihood(self.score(*pair), positives) for pair in pairs)
        apart = torch.linalg.vector_norm(image.pooled.float() - text.pooled.float(), dim=1).mean()
        return wrong + self.alpha * unlikely + self.beta * apart
