"""What SGRAF makes of an item's tokens and of a pair's similarity vectors."""

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from itmbench.encoders import masked_mean
from itmbench.methods.cross_attention import EPSILON

# Vectors shorter than this are not stretched to length 1, so that gradients stay bounded where nothing is left.
SHORTEST = 1e-4


class GlobalAttention(nn.Module):
    """One vector for an item: its tokens, weighted by how they agree with their mean.

    Weights are softmax over i of w (tanh(N(A x_i)) * tanh(N(B mean x))), with N a LayerNorm.

    Args:
        dim: size of the tokens.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.of_token = nn.Sequential(nn.Linear(dim, dim), nn.LayerNorm(dim), nn.Tanh())
        self.of_mean = nn.Sequential(nn.Linear(dim, dim), nn.LayerNorm(dim), nn.Tanh())
        self.weigh = nn.Linear(dim, 1)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Tokens `[B, N, D]` with mask, bool `[B, N]` -> `[B, D]` of length 1; zeros where no token is real."""
        tokens = tokens.to(self.weigh.weight.dtype)
        logits = self.weigh(self.of_token(tokens) * self.of_mean(masked_mean(tokens, mask)).unsqueeze(1)).squeeze(2)
        logits = logits.float().masked_fill(~mask, -torch.inf).masked_fill(~mask.any(1, keepdim=True), 0.0)
        weights = (logits.softmax(1) * mask).unsqueeze(2)
        return normalize((weights * tokens).sum(1), dim=-1, eps=SHORTEST)


class SimilarityFiltration(nn.Module):
    """SAF: the gated average of a pair's similarity vectors (Diao et al., AAAI 2021).

    Args:
        size: S, of the vectors.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.gate = nn.Linear(size, 1)

    def forward(self, nodes: Tensor, mask: Tensor) -> Tensor:
        """Nodes `[A, F, L, S]` with mask, bool `[F, L]`, the first always real -> `[A, F, S]` of length 1."""
        gates = self.gate(nodes).sigmoid() * mask.unsqueeze(2)
        gates = gates / gates.sum(2, keepdim=True).clamp(min=EPSILON)
        return normalize((gates * nodes).sum(2), dim=-1, eps=SHORTEST)


class SimilarityReasoning(nn.Module):
    """SGR: the similarity vectors of a pair exchange what they know, and the global one is read (Diao et al. 2021).

    Args:
        size: S, of the vectors.
        steps: of reasoning, each with weights of its own.
    """

    def __init__(self, size: int, steps: int) -> None:
        super().__init__()
        self.steps = nn.ModuleList(ReasoningStep(size) for _ in range(steps))

    def forward(self, nodes: Tensor, mask: Tensor) -> Tensor:
        """Nodes `[A, F, L, S]` with mask, bool `[F, L]`, the first always real -> the first one `[A, F, S]`."""
        for step in self.steps[:-1]:
            nodes = step(nodes, nodes, mask)
        return self.steps[-1](nodes[:, :, :1], nodes, mask).squeeze(2)


class ReasoningStep(nn.Module):
    """One step on the complete graph: ReLU(W sum_j softmax_j(Q n_i . K n_j) n_j).

    Args:
        size: S, of the nodes.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.query, self.key, self.out = (nn.Linear(size, size) for _ in range(3))

    def forward(self, asking: Tensor, nodes: Tensor, mask: Tensor) -> Tensor:
        """Asking nodes `[A, F, Q, S]`, all nodes `[A, F, L, S]` and their mask, bool `[F, L]` -> `[A, F, Q, S]`."""
        strength = self.query(asking) @ self.key(nodes).transpose(2, 3)
        edges = strength.masked_fill(~mask.unsqueeze(1), -torch.inf).softmax(3)
        return self.out(edges @ nodes).relu()
