"""Label nodes, which regions and words connect to."""

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm

from itmbench.encoders import Embeddings


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


def _standardised(tokens: Tensor) -> Tensor:
    return layer_norm(tokens, tokens.shape[-1:])
