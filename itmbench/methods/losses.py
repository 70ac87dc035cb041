"""Losses: (scores `[B, B]`, positives bool `[B, B]`) -> a scalar, so that every method trains on every dataset."""

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus


def positives(image_index: Tensor, labels: Tensor | None = None) -> Tensor:
    """Positive pairs of a batch of (image, text) pairs.

    Captions of the same image are positives of each other; with labels, so are items that share one.

    Args:
        image_index: the image of every pair, int64 `[B]`.
        labels: multi-hot labels of every pair `[B, C]`, or None.

    Returns:
        bool `[B, B]`: image of row i with text of column j. The diagonal is always true.
    """
    same = image_index.unsqueeze(1) == image_index.unsqueeze(0)
    if labels is None:
        return same
    return same | (labels.float() @ labels.float().T > 0)


class InfoNCE(nn.Module):
    """Symmetric InfoNCE: cross-entropy of the in-batch scores with targets normalised by row.

    One positive a row: the loss of CLIP (Radford et al. 2021). Several: L_out of SupCon (Khosla et al. 2020, eq. 2),
    the mean of their log-probabilities. With weights as targets it is the soft contrast of the label-graph methods
    (Qian et al., "Integrating Multi-Label Contrastive Learning with Dual Adversarial Graph Neural Networks for
    Cross-Modal Retrieval", TPAMI 2023), which keep a temperature of 0.22.

    Args:
        temperature: initial value of what scores are divided by.
        learn_temperature: train it, bounded below by 0.01 as in CLIP.
    """

    def __init__(self, temperature: float = 0.07, learn_temperature: bool = True) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(-math.log(temperature)), requires_grad=learn_temperature)

    def forward(self, scores: Tensor, targets: Tensor) -> Tensor:
        """Loss, a scalar, of scores `[B, B]` and targets `[B, B]` (bool, or weights of at least 0).

        The mean over rows, averaged over both directions. A row (or column) without a target is not counted.
        """
        logits, targets = scores.float() * bounded_exp(self.log_scale, 100.0), targets.float()
        return (_one_way(logits, targets) + _one_way(logits.T, targets.T)) / 2


def bounded_exp(log: nn.Parameter, limit: float) -> Tensor:
    """``exp(log)``, at most ``limit``.

    The parameter itself is clamped, not the result: a clamped result has no gradient, and a parameter that starts at
    the limit (CLIP's fine-tuned temperature) would stay there for ever.
    """
    with torch.no_grad():
        log.clamp_(max=math.log(limit))
    return log.exp()


def _one_way(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy of the rows that have a target."""
    total = targets.sum(1)
    rows = -(logits.log_softmax(1) * targets).sum(1) / total.where(total > 0, 1.0)
    return rows.sum() / (total > 0).sum().clamp(min=1)


class PairLikelihood(nn.Module):
    """Negative log-likelihood of every pair of the batch: P(belongs together) = sigmoid(theta), theta = scale * score.

    Log(1 + e^theta) - S theta, the first term of DCMH's objective (Jiang and Li, "Deep Cross-Modal Hashing", CVPR 2017)
    and the second of DSCMR's (Zhen et al. 2019); both take half the score as theta. They add up the pairs; here it is
    their mean, so that the loss does not grow with the batch.

    Args:
        scale: what scores are multiplied by.
    """

    def __init__(self, scale: float = 0.5) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, scores: Tensor, positives: Tensor) -> Tensor:
        """Loss, a scalar, of scores `[B, B]` (cosines or inner products) and positives, bool `[B, B]`."""
        theta = self.scale * scores.float()
        return softplus(theta.where(~positives, -theta)).mean()


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


def label_error(predicted: Tensor, labels: Tensor) -> Tensor:
    """Mean Euclidean distance, a scalar, between predicted labels `[B, C]` and labels `[B, C]`."""
    return torch.linalg.vector_norm(predicted.float() - labels.float(), dim=1).mean()
