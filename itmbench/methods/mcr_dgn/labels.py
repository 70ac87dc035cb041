"""Label nodes, which regions and words connect to, and embeddings whose cosine is the expected relevance."""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm

from itmbench.encoders import Embeddings

POWERS = 4
"""Terms of the logarithm's series in a relevance vector."""
LARGEST = 0.98
"""Largest label probability that counts."""


class LabelNodes(nn.Module):
    """One node per label, with an edge from every region or word of an item, weighted by the label's attention.

    logit_l = sum_n softmax_n(a_l . t_n) (v_l . t_n) over the tokens t_n: class-specific attention (Zhu and Wu,
    "Residual Attention", ICCV 2021). All weights start at 0, so a label first hears nothing.
    """

    def __init__(self, width: int, labels: int) -> None:
        super().__init__()
        self.attend, self.read = nn.Linear(width, labels), nn.Linear(width, labels)
        for weight in self.parameters():
            nn.init.zeros_(weight)

    def forward(self, items: Embeddings) -> Tensor:
        """Return what each label reads from the tokens of each item, `[B, C]`; 0 for an item without tokens."""
        weights = self.attention(items)
        assert items.tokens is not None
        return (weights * self.read(_standardised(items.tokens))).sum(1).float()

    def attention(self, items: Embeddings) -> Tensor:
        """Attention `[B, N, C]` of the labels to the tokens of each item; it sums to 1 over the tokens."""
        assert items.tokens is not None and items.mask is not None
        real = items.mask.unsqueeze(2)
        logits = (
            self.attend(_standardised(items.tokens)).float().masked_fill(~real & real.any(1, keepdim=True), -torch.inf)
        )
        return logits.softmax(1) * real


def relevance_vectors(probability: Tensor, modality: Literal["image", "text"]) -> Tensor:
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


def _standardised(tokens: Tensor) -> Tensor:
    return layer_norm(tokens, tokens.shape[-1:])
