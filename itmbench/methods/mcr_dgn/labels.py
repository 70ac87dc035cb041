"""Label nodes, which the regions or words of an item connect to."""

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm

from itmbench.encoders import Embeddings


class LabelNodes(nn.Module):
    """One node per label, with an edge from every region or word of an item, weighted by the label's attention.

    logit_l = sum_n softmax_n(a_l . t_n) (v_l . t_n) over the tokens t_n: class-specific attention (Zhu and Wu,
    "Residual Attention", ICCV 2021). All weights start at 0, so a label first receives nothing. The node of a label,
    sum_n softmax_n(a_l . t_n) U t_n, is what it attends to in the principal directions U of the training tokens.

    Args:
        width: W, size of the tokens.
        labels: C, number of labels.
        size: E, number of principal directions, at most W.
    """

    basis: Tensor

    def __init__(self, width: int, labels: int, size: int) -> None:
        super().__init__()
        self.attend, self.read = nn.Linear(width, labels), nn.Linear(width, labels)
        for weight in self.parameters():
            nn.init.zeros_(weight)
        self.register_buffer("basis", torch.zeros(width, min(size, width)))

    def forward(self, items: Embeddings) -> Tensor:
        """Logits of the labels from the tokens of each item, `[B, C]`; 0 for an item without tokens."""
        weights = self.attention(items)
        assert items.tokens is not None
        return (weights * self.read(_standardised(items.tokens))).sum(1).float()

    def nodes(self, items: Embeddings) -> Tensor:
        """The label nodes of each item, `[B, C, E]`."""
        assert items.tokens is not None
        tokens = _standardised(items.tokens) @ self.basis.to(items.tokens.dtype)
        return (self.attention(items).to(tokens.dtype).transpose(1, 2) @ tokens).float()

    def attention(self, items: Embeddings) -> Tensor:
        """Attention `[B, N, C]` of the labels to the tokens of each item; it sums to 1 over the tokens."""
        assert items.tokens is not None and items.mask is not None
        real = items.mask.unsqueeze(2)
        logits = (
            self.attend(_standardised(items.tokens)).float().masked_fill(~real & real.any(1, keepdim=True), -torch.inf)
        )
        return logits.softmax(1) * real

    @torch.no_grad()
    def fit_basis(self, items: Embeddings) -> None:
        """Set U to the directions in which the tokens of some training items vary most."""
        assert items.tokens is not None and items.mask is not None
        tokens = _standardised(items.tokens[items.mask].float())
        centred = tokens - tokens.mean(0)
        self.basis.copy_(torch.linalg.eigh(centred.T @ centred).eigenvectors[:, -self.basis.shape[1] :])


def _standardised(tokens: Tensor) -> Tensor:
    return layer_norm(tokens, tokens.shape[-1:])
