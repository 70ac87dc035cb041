"""DSCMR (Zhen et al., CVPR 2019): a shared last layer and a shared label classifier for both modalities."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from itmbench.data.corpus import Corpus
from itmbench.encoders import Embeddings
from itmbench.methods.base import Batch, Modality
from itmbench.methods.distributed import gather_rows
from itmbench.methods.losses import PairLikelihood, label_error
from itmbench.methods.relevance import LabelMatcher


class DSCMR(LabelMatcher):
    """Two networks that share their last layer and a label classifier. The data must have labels.

    Args:
        dim: D, size of the common space.
        alpha: weight of the likelihood that pairs share a label, within and across the modalities.
        beta: weight of the distance between an image and its text.
        **kwargs: arguments of ``LabelMatcher``.
    """

    reads_tokens = False

    def __init__(self, dim: int = 256, alpha: float = 1e-3, beta: float = 0.1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.dim, self.alpha, self.beta = dim, alpha, beta
        self.project = self.per_modality(lambda width: nn.Sequential(nn.Linear(width, dim), nn.ReLU()))
        self.hash_head = self.make_hash_head(dim)
        self.common = nn.Linear(dim, dim)
        self.classifier: nn.Linear | None = None  # built once the number of labels is known
        self.likelihood = PairLikelihood(scale=0.5)

    def adapt(self, corpus: Corpus) -> None:
        labels = self.training_labels(corpus)
        super().adapt(corpus)
        self._build_classifier(labels.shape[1])

    def adapt_to_state(self, state: Mapping[str, Tensor]) -> None:
        self._build_classifier(len(state["classifier.weight"]))

    def _build_classifier(self, labels: int) -> None:
        if self.classifier is None:
            self.classifier = nn.Linear(self.dim, labels)

    def embed(self, items: Embeddings, modality: Modality) -> Embeddings:
        return Embeddings(self.common(self.project[modality](items.pooled)))

    def predict_labels(self, vectors: Tensor) -> Tensor:
        assert self.classifier is not None
        return self.classifier(vectors)

    def training_loss(self, batch: Batch) -> Tensor:
        image, text, positives = self.encode_pairs(batch)
        labels = gather_rows(self, batch["labels"])
        label_loss = sum(label_error(self.predict_labels(items.pooled), labels) for items in (image, text))
        pairs = ((image, image), (text, text), (image, text))
        likelihood_loss = sum(self.likelihood(self.score(*pair), positives) for pair in pairs)
        distance = torch.linalg.vector_norm(image.pooled.float() - text.pooled.float(), dim=1).mean()
        hash_loss = self.hash_loss(image.pooled, text.pooled, positives)
        return label_loss + self.alpha * likelihood_loss + self.beta * distance + hash_loss
