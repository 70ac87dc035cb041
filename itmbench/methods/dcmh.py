"""DCMH (Jiang and Li, CVPR 2017) with real-valued codes in place of hash bits."""

from typing import Any

from torch import Tensor, nn

from itmbench.data.corpus import Corpus
from itmbench.encoders import Embeddings
from itmbench.encoders.base import Inputs
from itmbench.methods.base import Batch, Matcher
from itmbench.methods.losses import PairLikelihood


class DCMH(Matcher):
    """Learn codes whose inner product predicts whether an image and a text share a label. The data must have labels.

    Args:
        dim: D, size of a code.
        **kwargs: arguments of ``Matcher``.
    """

    def __init__(self, dim: int = 64, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.project_image = nn.Linear(self.image.width, dim)
        self.project_text = nn.Linear(self.text.width, dim)
        self.likelihood = PairLikelihood(scale=0.5)

    def adapt(self, corpus: Corpus) -> None:
        self.training_labels(corpus)  # fails early on data without labels
        super().adapt(corpus)

    def encode_image(self, images: Inputs) -> Embeddings:
        return Embeddings(self.project_image(self.image(images).pooled))

    def encode_text(self, tokens: Inputs) -> Embeddings:
        return Embeddings(self.project_text(self.text(tokens).pooled))

    def training_loss(self, batch: Batch) -> Tensor:
        image, text, positives = self.encode_pairs(batch)
        return self.likelihood(image.pooled @ text.pooled.T, positives)
