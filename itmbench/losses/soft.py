"""InfoNCE whose targets are weights: how much every text of the batch belongs to an image."""

import math

import torch
from torch import Tensor, nn


class SoftInfoNCE(nn.Module):
    """Symmetric cross-entropy of the in-batch scores with targets normalised by row.

    With 0 and 1 as targets it is ``InfoNCE``: the soft contrastive loss of the label-graph methods (Qian et al.,
    "Integrating Multi-Label Contrastive Learning with Dual Adversarial Graph Neural Networks for Cross-Modal
    Retrieval", TPAMI 2023), whose temperature of 0.22 is the default.

    Args:
        temperature: what scores are divided by, at the start.
        learn_temperature: learn it, kept above 0.01.
    """

    def __init__(self, temperature: float = 0.22, learn_temperature: bool = False) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(-math.log(temperature)), requires_grad=learn_temperature)

    def forward(self, scores: Tensor, targets: Tensor) -> Tensor:
        """Loss, a scalar, of scores `[B, B]` and targets `[B, B]`, at least 0: the mean over rows, of both directions.

        A row (or column) without a target has nothing to say: it costs nothing and is not counted.
        """
        logits, targets = scores.float() * self.log_scale.exp().clamp(max=100.0), targets.float()
        return (_one_way(logits, targets) + _one_way(logits.T, targets.T)) / 2


def _one_way(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy of the rows that have a target."""
    total = targets.sum(1)
    rows = -(logits.log_softmax(1) * targets).sum(1) / total.where(total > 0, 1.0)
    return rows.sum() / (total > 0).sum().clamp(min=1)
