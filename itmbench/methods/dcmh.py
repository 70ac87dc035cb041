"""DCMH (Jiang and Li, CVPR 2017) with real-valued codes in place of hash bits."""

from typing import Any

from torch import Tensor, nn

from itmbench.data.corpus import Corpus
from itmbench.encoders import Embeddings
from itmbench.methods.base import Batch, Modality
from itmbench.methods.hash_codes import HashMatcher
from itmbench.methods.losses import PairLikelihood


class DCMH(HashMatcher):
    """Learn codes whose inner product predicts whether an image and a text share a label. The data must have labels.

    Args:
        dim: D, size of a code.
        **kwargs: arguments of ``HashMatcher``.
    """

    reads_tokens = False

    def __init__(self, dim: int = 64, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.project = self.per_modality(lambda width: nn.Linear(width, dim))
        self.hash_head = self.make_hash_head(dim)
        self.likelihood = PairLikelihood(scale=0.5)

    def adapt(self, corpus: Corpus) -> None:
        self.training_labels(corpus)  # fails early on data without labels
        super().adapt(corpus)

    def embed(self, items: Embeddings, modality: Modality) -> Embeddings:
        return Embeddings(self.project[modality](items.pooled))

    def training_loss(self, batch: Batch) -> Tensor:
        image, text, positives = self.encode_pairs(batch)
        return self.likelihood(image.pooled @ text.pooled.T, positives) + self.hash_loss(
            image.pooled, text.pooled, positives
        )
