"""Losses on in-batch scores `[B, B]` and positives `[B, B]`, so that every method trains on every dataset."""

import math
import sys
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from itmbench.options import Recorded, require_range


def positives(image_index: Tensor, labels: Tensor | None = None) -> Tensor:
    """The positives of a batch of pairs, bool `[B, B]`: image of row i with text of column j.

    Captions of the same image (``image_index``, int64 `[B]`) are positives of each other. With multi-hot ``labels``
    `[B, C]`, so are items that share one.
    """
    same = image_index.unsqueeze(1) == image_index.unsqueeze(0)
    if labels is None:
        return same
    return same | (labels.float() @ labels.float().T > 0)


class InfoNCE(Recorded, nn.Module):
    """Symmetric InfoNCE: cross-entropy of the in-batch scores against row-normalised targets.

    With one positive per row this is CLIP's loss (Radford et al., ICML 2021). With several it is L_out of SupCon
    (Khosla et al., NeurIPS 2020, eq. 2), the mean of their log-probabilities. With weights as targets it is the soft
    contrast of GNN4CMR (Qian et al., TPAMI 2023), which fixes the temperature at 0.22.

    Args:
        temperature: initial temperature, by which scores are divided.
        learn_temperature: train the temperature; as in CLIP it stays at or above 0.01.

    Raises:
        InputError: ``temperature`` is not positive.
    """

    def __init__(self, temperature: float = 0.07, learn_temperature: bool = True) -> None:
        super().__init__()
        require_range("temperature", temperature, sys.float_info.min, 1e3)
        self.log_scale = nn.Parameter(torch.tensor(-math.log(temperature)), requires_grad=learn_temperature)

    def forward(self, scores: Tensor, targets: Tensor) -> Tensor:
        """Return the loss, a scalar: the mean over rows, averaged over both directions.

        Args:
            scores: `[B, B]`.
            targets: `[B, B]`, bool or nonnegative weights. Rows and columns without a target are skipped.
        """
        logits, targets = scores.float() * bounded_exp(self.log_scale, 100.0), targets.float()
        return (_one_way(logits, targets) + _one_way(logits.T, targets.T)) / 2


def bounded_exp(log: nn.Parameter, limit: float) -> Tensor:
    """``exp(log)``, at most ``limit``.

    Clamps the parameter instead of the result: a clamped result has no gradient, so a parameter that starts at the
    limit, as the temperature of a fine-tuned CLIP does, could never move.
    """
    with torch.no_grad():
        log.clamp_(max=math.log(limit))
    return log.exp()


def log_inverse_temperature(loss: nn.Module) -> Tensor:
    """Logarithm of the factor of a loss on its scores, without gradient; 0 for losses without a temperature."""
    scale = getattr(loss, "log_scale", None)
    return torch.zeros(()) if scale is None else scale.detach()


def side_by_side(vectors: Sequence[Tensor], losses: Sequence[nn.Module]) -> Tensor:
    """Unit vectors `[B, D]` of several heads as one `[B, H D]`, scaled so that a product adds the heads' logits.

    ``losses`` are those that trained the heads.
    """
    scales = [(log_inverse_temperature(loss) / 2).exp() for loss in losses]
    return torch.cat([scale * vector for scale, vector in zip(scales, vectors, strict=True)], dim=1)


def _one_way(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy of the rows that have a target."""
    total = targets.sum(1)
    rows = -(logits.log_softmax(1) * targets).sum(1) / total.where(total > 0, 1.0)
    return rows.sum() / (total > 0).sum().clamp(min=1)


class PairLikelihood(Recorded, nn.Module):
    """Negative log-likelihood that each pair of the batch belongs together, with P = sigmoid(scale * score).

    log(1 + e^theta) - S theta, where theta = scale * score and S is 1 for positives: the first term of DCMH's
    objective (Jiang and Li, CVPR 2017) and the second of DSCMR's (Zhen et al., CVPR 2019); both use half the score as
    theta. They sum over the pairs; this is the mean, which does not grow with the batch.

    Args:
        scale: factor on the scores.
    """

    def __init__(self, scale: float = 0.5) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, scores: Tensor, positives: Tensor) -> Tensor:
        """Return the loss, a scalar, of scores `[B, B]` (cosines or inner products) and positives, bool `[B, B]`."""
        theta = self.scale * scores.float()
        return softplus(theta.where(~positives, -theta)).mean()


class TripletLoss(Recorded, nn.Module):
    """Hinge loss between every positive pair and the negatives in its row and its column.

    ``hardest`` is eq. 6 of VSE++ (Faghri et al., BMVC 2018). ``all`` is its eq. 5 with a mean in place of the sum, so
    that both are on the same scale.

    Args:
        margin: how much higher than a negative a positive must score.
        negatives: use only the hardest negative of a row or column, or all of them.
        warmup_steps: training steps that use all negatives before ``hardest`` takes over. From random weights the
            hardest negatives alone often collapse all embeddings to a point.
    """

    def __init__(
        self, margin: float = 0.2, negatives: Literal["hardest", "all"] = "hardest", warmup_steps: int = 0
    ) -> None:
        super().__init__()
        self.margin, self.negatives, self.warmup_steps = margin, negatives, warmup_steps
        self.step = 0  # a number, not a buffer: to read one from a GPU would stop it in every step

    def forward(self, scores: Tensor, positives: Tensor) -> Tensor:
        """Return the loss, a scalar: the mean over positives (bool `[B, B]`), summed over both directions."""
        hardest = self.negatives == "hardest" and self.step >= self.warmup_steps
        if self.training:
            self.step += 1
        one_way = self._hardest if hardest else self._all
        scores = scores.float()
        return one_way(scores, positives) + one_way(scores.T, positives.T)

    def _hardest(self, scores: Tensor, positives: Tensor) -> Tensor:
        hardest = scores.masked_fill(positives, -torch.inf).amax(1, keepdim=True)
        return ((self.margin + hardest - scores).clamp(min=0) * positives).sum() / positives.sum()

    def _all(self, scores: Tensor, positives: Tensor) -> Tensor:
        """Compare every positive of a row with every negative of it, a few rows at a time to bound memory."""
        losses = []
        count = max(1, 2**22 // len(scores) ** 2)
        for rows, right in zip(scores.split(count), positives.split(count), strict=True):
            wrong = ~right
            hinges = (self.margin + rows.unsqueeze(1) - rows.unsqueeze(2)).clamp(min=0)  # [row, positive, negative]
            means = (hinges * wrong.unsqueeze(1)).sum(2) / wrong.sum(1, keepdim=True).clamp(min=1)
            losses.append((means * right).sum())
        return torch.stack(losses).sum() / positives.sum()

    def get_extra_state(self) -> Tensor:
        """The number of steps, for a training that resumes."""
        return torch.tensor(self.step)

    def set_extra_state(self, state: Tensor) -> None:
        self.step = int(state)


def label_error(predicted: Tensor, labels: Tensor) -> Tensor:
    """Mean Euclidean distance, a scalar, between predicted labels `[B, C]` and true labels `[B, C]`."""
    return torch.linalg.vector_norm(predicted.float() - labels.float(), dim=1).mean()
