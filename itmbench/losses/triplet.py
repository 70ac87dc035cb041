"""Triplet loss over a batch: VSE++ (Faghri et al. 2018) and its warm-up."""

from typing import Literal

import torch
from torch import Tensor, nn


class TripletLoss(nn.Module):
    """Hinge between every positive pair and the negatives of its image and of its text.

    ``hardest`` is eq. 6 of VSE++ (Faghri et al. 2018), ``all`` its eq. 5 with a mean in place of the sum,
    so that the two are of one size.

    Args:
        margin: how far a positive must be above a negative.
        negatives: count only the hardest negative of a row or column, or all of them.
        warmup_steps: training steps that count all negatives before the hardest are used; from random weights the
            hardest alone often collapse all embeddings to a point.
    """

    step: Tensor

    def __init__(
        self, margin: float = 0.2, negatives: Literal["hardest", "all"] = "hardest", warmup_steps: int = 0
    ) -> None:
        super().__init__()
        self.margin, self.negatives, self.warmup_steps = margin, negatives, warmup_steps
        self.register_buffer("step", torch.tensor(0))

    def forward(self, scores: Tensor, positives: Tensor) -> Tensor:
        """Loss, a scalar, of scores `[B, B]` and positives, bool `[B, B]`: mean over positives, both ways added."""
        hardest = self.negatives == "hardest" and bool(self.step >= self.warmup_steps)
        if self.training:
            self.step += 1
        one_way = self._hardest if hardest else self._all
        scores = scores.float()
        return one_way(scores, positives) + one_way(scores.T, positives.T)

    def _hardest(self, scores: Tensor, positives: Tensor) -> Tensor:
        hardest = scores.masked_fill(positives, -torch.inf).amax(1, keepdim=True)
        return (self.margin + hardest - scores).clamp(min=0)[positives].mean()

    def _all(self, scores: Tensor, positives: Tensor) -> Tensor:
        """Every positive p of a row against every negative n of it: `[P, N]` hinges a row, to bound memory."""
        losses = [
            (self.margin + row[~own].unsqueeze(0) - row[own].unsqueeze(1)).clamp(min=0).sum(1)
            / max(1, int((~own).sum()))
            for row, own in zip(scores, positives, strict=True)
        ]
        return torch.cat(losses).mean()
