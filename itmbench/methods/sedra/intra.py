"""Intra-modal dynamic relation awareness (Fig. 2): the tokens of an item exchange messages with related tokens."""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

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
        parts = tokens.unflatten(2, (self.heads, -1)).transpose(1, 2)  # [B, H, N, D / H]
        others = mask[:, None, None, :] & ~torch.eye(tokens.shape[1], dtype=torch.bool, device=tokens.device)
        strength = self._strength(parts).masked_fill(~others, -torch.inf)
        if self.mode == "topk" and self.k < strength.shape[-1]:
            weakest = strength.detach().topk(self.k, dim=-1).values[..., -1:]
            strength = strength.masked_fill(strength < weakest, -torch.inf)
        # A single token has no relations: weights 0, where softmax would give NaN.
        alone = ~others.any(-1, keepdim=True)
        weights = strength.masked_fill(alone, 0.0).softmax(-1).masked_fill(alone, 0.0)
        messages = (weights.to(parts.dtype) @ parts).transpose(1, 2).flatten(2)
        return tokens + self.step * self.mix(messages)

    def _strength(self, parts: Tensor) -> Tensor:
        """Strength of every relation, float32 `[B, H, N, N]`."""
        position = torch.arange(parts.shape[2], device=parts.device)
        distance = (position - position.unsqueeze(1)).clamp(-MAX_DISTANCE, MAX_DISTANCE) + MAX_DISTANCE
        bias = self.place[:, distance].float()
        if self.mode == "static":
            return bias.expand(len(parts), -1, -1, -1)
        unit = normalize(parts.float(), dim=3)
        return self.log_sharpness.exp() * (unit @ unit.transpose(2, 3)) + bias
