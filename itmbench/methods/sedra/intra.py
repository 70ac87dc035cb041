"""Intra-modal dynamic relation awareness (Fig. 2): the tokens of an item exchange messages with related tokens."""

from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from itmbench.encoders.base import hiding

Intra = Literal["off", "full", "topk", "static"]

MAX_DISTANCE = 32
"""Longest distance between two tokens that has a learned bias of its own; longer distances share one."""
INITIAL_STEP = 0.1
"""Initial factor on the messages that a token receives."""


class IntraModalRelations(nn.Module):
    """Add to each token a message from the tokens it is related to: v_i' = v_i + step * W sum_j a_ij v_j.

    The strength of a relation is s cos(v_i, v_j) + b(j - i), per attention head, with a learned sharpness s and a
    learned bias b of the relative position (Raffel et al., JMLR 2020): words in their order, patches row by row. The
    weights a are the softmax of the strengths over the other tokens. W starts as the identity and the step, one per
    dimension, small, so an untrained layer moves tokens slightly towards similar ones.

    Args:
        dim: D, size of the tokens, a multiple of ``heads``.
        mode: ``topk`` keeps the k strongest relations per token and input; ``full`` keeps all; ``static`` uses the
            positions alone, the same for every input; ``off`` returns the tokens unchanged.
        k: relations per token in ``topk``.
        heads: parts of a token, each with relations of its own.
    """

    def __init__(self, dim: int, mode: Intra = "topk", k: int = 8, heads: int = 4) -> None:
        super().__init__()
        self.mode, self.k, self.heads = mode, k, heads
        if mode == "off":
            return
        if mode != "static":
            self.log_sharpness = nn.Parameter(torch.full((heads, 1, 1), 2.0))
        self.place = nn.Parameter(torch.zeros(heads, 2 * MAX_DISTANCE + 1))
        self.mix = nn.Linear(dim, dim, bias=False)
        nn.init.eye_(self.mix.weight)
        self.step = nn.Parameter(torch.full((dim,), INITIAL_STEP))

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Update tokens `[B, N, D]` under a mask, bool `[B, N]`; padding is ignored."""
        if self.mode == "off":
            return tokens
        parts = tokens.unflatten(2, (self.heads, -1)).transpose(1, 2).contiguous()  # [B, H, N, D / H]
        strength = self._strength(parts) + hiding(mask)[:, None, None, :]
        if self.mode == "topk" and self.k < strength.shape[-1]:
            values = strength.detach()
            strength = strength + hiding(values >= kth_largest(values, self.k, dim=3))
        related = mask.sum(1, keepdim=True) > mask  # all but a single token
        weights = strength.softmax(-1) * related[:, None, :, None].float()
        messages = (weights.to(parts.dtype) @ parts).transpose(1, 2).flatten(2)
        return tokens + self.step * self.mix(messages)

    def _strength(self, parts: Tensor) -> Tensor:
        """Strength of every relation, float32 `[B, H, N, N]`."""
        position = torch.arange(parts.shape[2], device=parts.device)
        distance = (position - position.unsqueeze(1)).clamp(-MAX_DISTANCE, MAX_DISTANCE) + MAX_DISTANCE
        bias = self.place[:, distance].float() + hiding(distance != MAX_DISTANCE)  # a token has no relation to itself
        if self.mode == "static":
            return bias.expand(len(parts), -1, -1, -1)
        unit = normalize(parts.float(), dim=3)
        return self.log_sharpness.exp() * (unit @ unit.transpose(2, 3)) + bias


def kth_largest(values: Tensor, k: int, dim: int) -> Tensor:
    """The k-th largest value along a dimension, kept at size 1. On a CPU, NumPy's partition is several times faster."""
    if values.device.type != "cpu":
        return values.topk(k, dim=dim).values.narrow(dim, k - 1, 1)
    at = values.shape[dim] - k
    return torch.from_numpy(np.partition(values.numpy(), at, axis=dim)).narrow(dim, at, 1)
