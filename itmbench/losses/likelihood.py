"""Likelihood of which pairs belong together: DCMH (Jiang and Li 2017) and its successors."""

from torch import Tensor, nn
from torch.nn.functional import softplus


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
