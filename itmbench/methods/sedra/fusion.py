"""Relation fusion enhancement (Fig. 4): how much of its context a token takes up, and what the pair scores by it."""

from typing import Literal

import torch
from torch import Tensor, nn

from itmbench.methods.cross_attention import Context, safe_sqrt

Fusion = Literal["gate", "sum", "concat"]


class RelationFusion(nn.Module):
    """The similarity of a token, fused with its context, to this context; then of the whole pair.

    A unit token t and its context x are fused to f = z t + (1 - z) x with a gate z. All that follows is known from
    <t, x> and |x|, see `itmbench.methods.cross_attention`. The similarity vector of the token is
    (cos(f, x), cos(t, x), |x|). A pair's vectors are averaged over its tokens with a sigmoid gate each (SAF, Diao et
    al., "Similarity Reasoning and Filtration", AAAI 2021) and read by a linear layer.

    Args:
        mode: ``gate`` as above, z = sigmoid(a cos(t, x) + b |x| + c) with learned a, b, c; ``sum`` is f = t + x;
            ``concat`` fuses nothing: the vector is (cos(t, x), |x|).
    """

    def __init__(self, mode: Fusion = "gate") -> None:
        super().__init__()
        self.mode = mode
        if mode == "gate":
            self.gate = nn.Parameter(torch.tensor([0.0, 0.0, 2.0]))
        size = 2 if mode == "concat" else 3
        self.filter, self.read = nn.Linear(size, 1), nn.Linear(size, 1)
        # Before it has learned anything the score is the mean of the first cosine.
        with torch.no_grad():
            for layer in (self.filter, self.read):
                layer.weight.zero_()
                layer.bias.zero_()
            self.read.weight[:, 0] = 1

    def forward(self, context: Context, mask: Tensor, dim: int) -> Tensor:
        """Scores with the tokens of dimension ``dim`` averaged away.

        Args:
            context: of unit tokens, fields of any shape.
            mask: true where a token is real, bool, of a shape that broadcasts with the fields.
            dim: dimension of the tokens of an item.
        """
        vector = self.similarity(context)
        weights = torch.sigmoid(_linear(self.filter, vector)) * mask
        read = _linear(self.read, vector)
        return (read * weights).sum(dim) / weights.sum(dim).clamp(min=1e-6)

    def similarity(self, context: Context) -> list[Tensor]:
        """The similarity vectors of all tokens, one tensor a component."""
        product, norm = context.mean_product(), context.norm()
        cosine = product / norm
        if self.mode == "concat":
            return [cosine, norm]
        if self.mode == "sum":
            own = other = torch.ones_like(cosine)
        else:
            a, b, c = self.gate
            own = torch.sigmoid(a * cosine + b * norm + c)
            other = 1 - own
        fused = safe_sqrt(own.square() + 2 * own * other * product + (other * norm).square())
        return [(own * cosine + other * norm) / fused, cosine, norm]


def _linear(layer: nn.Linear, components: list[Tensor]) -> Tensor:
    result = layer.bias
    for weight, component in zip(layer.weight[0], components, strict=True):
        result = result + weight * component
    return result
