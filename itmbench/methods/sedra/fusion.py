"""Relation fusion enhancement (Fig. 4): fuse each token with its context and score the pair by the results."""

from typing import Literal

import torch
from torch import Tensor, nn

from itmbench.methods.cross_attention import Context, safe_sqrt

Fusion = Literal["gate", "sum", "concat"]


class RelationFusion(nn.Module):
    """Score pairs by the similarity of each token, fused with its context, to that context.

    A unit token t and its context x fuse to f = z t + (1 - z) x with a gate z. The similarity vector of the token is
    (cos(f, x), cos(t, x), |x|), which <t, x> and |x| determine (`itmbench.methods.cross_attention`). A sigmoid gate
    per token weighs the vectors of a pair, and a linear layer reads them (SAF; Diao et al., "Similarity Reasoning and
    Filtration", AAAI 2021).

    Args:
        mode: ``gate`` uses z = sigmoid(a cos(t, x) + b |x| + c) with learned a, b, c; ``sum`` uses f = t + x;
            ``concat`` does not fuse and uses the vector (cos(t, x), |x|).
    """

    def __init__(self, mode: Fusion = "gate") -> None:
        super().__init__()
        self.mode = mode
        if mode == "gate":
            self.gate = nn.Parameter(torch.tensor([0.0, 0.0, 2.0]))
        size = 2 if mode == "concat" else 3
        self.filter, self.read = nn.Linear(size, 1), nn.Linear(size, 1)
        # The untrained score is the mean of the first cosine.
        with torch.no_grad():
            for layer in (self.filter, self.read):
                layer.weight.zero_()
                layer.bias.zero_()
            self.read.weight[:, 0] = 1

    def forward(self, context: Context, mask: Tensor, dim: int) -> Tensor:
        """Score pairs, averaging over the tokens.

        Args:
            context: measurements of the contexts of unit tokens.
            mask: true for real tokens, bool, of a shape that broadcasts with the fields of ``context``.
            dim: the dimension of the tokens, which the result lacks.
        """
        vector = self.similarity(context)
        weights = torch.sigmoid(_linear(self.filter, vector)) * mask.float()
        scores = _linear(self.read, vector)
        return (scores * weights).sum(dim) / weights.sum(dim).clamp(min=1e-6)

    def similarity(self, context: Context) -> list[Tensor]:
        """Similarity vectors of all tokens, as one tensor per component."""
        product, norm = context.mean_product(), context.norm()
        cosine = product / norm
        if self.mode == "concat":
            return [cosine, norm]
        if self.mode == "sum":
            token_share = context_share = torch.ones_like(cosine)
        else:
            a, b, c = self.gate
            token_share = torch.sigmoid(a * cosine + b * norm + c)
            context_share = 1 - token_share
        fused_norm = safe_sqrt(
            token_share.square() + 2 * token_share * context_share * product + (context_share * norm).square()
        )
        return [(token_share * cosine + context_share * norm) / fused_norm, cosine, norm]


def _linear(layer: nn.Linear, components: list[Tensor]) -> Tensor:
    """Apply a layer with one output to a vector that is given as one tensor per component."""
    result = layer.bias
    for weight, component in zip(layer.weight[0], components, strict=True):
        result = result + weight * component
    return result
