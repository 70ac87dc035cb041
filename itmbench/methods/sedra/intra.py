"""Intra-modal dynamic relation awareness (Fig. 2): tokens of one item take up what those related to them hold."""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

Intra = Literal["off", "full", "topk", "static"]

PLACES = 32
"""Distances of two tokens in an item, each with a bias of its own; beyond it they share one."""
STEP = 0.1
"""How much of what they are related to tokens take up at the start."""


class IntraModalRelations(nn.Module):
    """Every token takes up some of what the tokens that it is related to hold: v_i' = v_i + step * W sum_j a_ij v_j.

    The strength of a relation is s cos(v_i, v_j) + b(j - i), of the parts of the tokens that belong to a head, with a
    learned sharpness s and a learned bias b of how far apart they stand: words in their order, patches row by row
    (relative positions as Raffel et al., JMLR 2020, have them). Weights a are its softmax over the other tokens. W
    begins as the identity, the step, one for each dimension, small: an untrained layer moves tokens a little towards
    those that they resemble.

    Args:
        dim: D, size of the tokens, a multiple of ``heads``.
        mode: ``topk`` keeps the k strongest relations of every token, anew for every input; ``full`` keeps all of
            them; ``static`` knows the places alone, the same for every input; ``off`` leaves the tokens alone.
        k: relations kept by ``topk``.
        heads: parts of a token, each with relations of its own.
    """

    def __init__(self, dim: int, mode: Intra = "topk", k: int = 8, heads: int = 4) -> None:
        super().__init__()
        self.mode, self.k, self.heads = mode, k, heads
        if mode == "off":
            return
        if mode != "static":
            self.log_sharpness = nn.Parameter(torch.full((heads, 1, 1), 2.0))
        self.place = nn.Parameter(torch.zeros(heads, 2 * PLACES + 1))
        self.mix = nn.Linear(dim, dim, bias=False)
        nn.init.eye_(self.mix.weight)
        self.step = nn.Parameter(torch.full((dim,), STEP))

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Tokens `[B, N, D]` with mask, bool `[B, N]` -> tokens `[B, N, D]`; padded ones are never looked at."""
        if self.mode == "off":
            return tokens
        parts = tokens.unflatten(2, (self.heads, -1)).transpose(1, 2)  # [B, H, N, D / H]
        others = mask[:, None, None, :] & ~torch.eye(tokens.shape[1], dtype=torch.bool, device=tokens.device)
        strength = self._strength(parts).masked_fill(~others, -torch.inf)
        if self.mode == "topk" and self.k < strength.shape[-1]:
            weakest = strength.detach().topk(self.k, dim=-1).values[..., -1:]
            strength = strength.masked_fill(strength < weakest, -torch.inf)
        # A token that is alone has no relation at all: weights 0, where softmax gives NaN.
        alone = ~others.any(-1, keepdim=True)
        weights = strength.masked_fill(alone, 0.0).softmax(-1).masked_fill(alone, 0.0)
        related = (weights.to(parts.dtype) @ parts).transpose(1, 2).flatten(2)
        return tokens + self.step * self.mix(related)

    def _strength(self, parts: Tensor) -> Tensor:
        """Strength of every relation, float32 `[B, H, N, N]`."""
        at = torch.arange(parts.shape[2], device=parts.device)
        distance = (at - at.unsqueeze(1)).clamp(-PLACES, PLACES) + PLACES
        place = self.place[:, distance].float()
        if self.mode == "static":
            return place.expand(len(parts), -1, -1, -1)
        unit = normalize(parts.float(), dim=3)
        return self.log_sharpness.exp() * (unit @ unit.transpose(2, 3)) + place
