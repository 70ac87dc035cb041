"""InfoNCE over a batch, with any number of positives a row."""

import math

import torch
from torch import Tensor, nn


class InfoNCE(nn.Module):
    """Symmetric InfoNCE; with several positives, the mean of their log-probabilities.

    One positive a row: the loss of CLIP (Radford et al. 2021). Several: L_out of SupCon (Khosla et al. 2020, eq. 2),
    whose targets are uniform over the positives.

    Args:
        temperature: what scores are divided by, at the start.
        learn_temperature: learn it, kept above 0.01 as in CLIP.
    """

    def __init__(self, temperature: float = 0.07, learn_temperature: bool = True) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(-math.log(temperature)), requires_grad=learn_temperature)

    def forward(self, scores: Tensor, positives: Tensor) -> Tensor:
        """Loss, a scalar, of scores `[B, B]` and positives, bool `[B, B]`."""
        logits = scores.float() * self.log_scale.exp().clamp(max=100.0)
        return (_one_way(logits, positives) + _one_way(logits.T, positives.T)) / 2


def _one_way(logits: Tensor, positives: Tensor) -> Tensor:
    """Mean over rows of minus the mean log-probability of the row's positives."""
    targets = positives.to(logits.dtype)
    return -((logits.log_softmax(1) * targets).sum(1) / targets.sum(1)).mean()
