"""Ranking by expected relevance: the probability, from predicted label probabilities, that two items share a label."""

from typing import Any, Literal

import torch
from torch import Tensor

from itmbench.encoders import Embeddings
from itmbench.errors import InputError
from itmbench.methods.base import Modality
from itmbench.methods.hash_codes import HashMatcher

POWERS = 4
"""Terms of the logarithm's series in a relevance vector."""
LARGEST = 0.98
"""Largest label probability that counts."""


def relevance_vectors(probability: Tensor, modality: Modality) -> Tensor:
    """Unit vectors `[B, 4 C + 2]` that rank by the probability of a shared label, from label probabilities `[B, C]`.

    With independent labels, items with the probabilities p and q share none with probability prod_l (1 - p_l q_l). The
    cosine of their vectors is proportional to sum_l (pq + (pq)^2 / 2 + ... + (pq)^4 / 4), the beginning of the series
    of minus its logarithm. A coordinate of each modality's own fills the vectors up to equal length, so that the cosine
    ranks like the inner product (Neyshabur and Srebro, ICML 2015).
    """
    powers = torch.arange(1, POWERS + 1, device=probability.device)
    terms = probability.float().clamp(0, LARGEST).unsqueeze(2) ** powers / powers.sqrt()
    vectors = terms.flatten(1) / (probability.shape[1] * (1 / powers).sum()).sqrt()
    missing = (1 - vectors.square().sum(1, keepdim=True)).clamp(min=0).sqrt()
    nothing = torch.zeros_like(missing)
    return torch.cat([vectors, *((missing, nothing) if modality == "image" else (nothing, missing))], dim=1)


class LabelMatcher(HashMatcher):
    """Base of the methods that predict labels from pooled vectors; a subclass implements ``predict_labels``.

    Args:
        rank_by: rank test items by the cosine of their vectors, or by the probability that they share a label. With
            ``votes``, a share w of the label probabilities is then the mean label of an item's neighbours.
        **kwargs: arguments of ``HashMatcher``.
    """

    switchable = HashMatcher.switchable | {"rank_by"}

    def __init__(self, rank_by: Literal["cosine", "relevance"] = "cosine", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if self.hash_bits is not None and rank_by == "relevance":
            raise InputError(f"{type(self).__name__}: codes are made from vectors; remove rank_by or hash_bits")
        self.rank_by = rank_by

    def predict_labels(self, vectors: Tensor) -> Tensor:
        """Predicted labels `[B, C]` of pooled vectors `[B, D]`; values outside 0 to 1 are clamped."""
        raise NotImplementedError

    def at_test(self, items: Embeddings, modality: Modality) -> Embeddings:
        if self.rank_by == "cosine":
            return super().at_test(items, modality)
        predicted = self.predict_labels(items.pooled).float().clamp(0, 1)
        if self.votes is None:
            return Embeddings(relevance_vectors(predicted, modality))
        voted = self.votes.probabilities(items.pooled, modality)
        if self.choosing:
            return Embeddings(torch.cat([predicted, voted], dim=1))
        return Embeddings(relevance_vectors(mixed(predicted, voted, self.votes.weight), modality))

    def as_candidate(self, items: Embeddings, modality: Modality, candidate: Any) -> Embeddings:
        if self.rank_by == "cosine":
            return super().as_candidate(items, modality, candidate)
        predicted, voted = items.pooled.chunk(2, dim=1)
        return Embeddings(relevance_vectors(mixed(predicted, voted, candidate), modality))


def mixed(predicted: Tensor, votes: Tensor, weight: Tensor | float) -> Tensor:
    """Label probabilities `[B, C]`, a share ``weight`` of which are votes; the predicted ones if there are no votes."""
    return predicted if not votes.shape[1] else predicted + weight * (votes - predicted)
