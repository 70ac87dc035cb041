"""Intra-modal dynamic relation awareness (Fig. 2): tokens of one item look at those they are most related to."""

import math
from typing import Literal

import torch
from torch import Tensor, nn

from itmbench.methods.place_codes import sinusoids

Intra = Literal["off", "full", "topk", "static"]

BRANCH = 0.1
"""Factor on both branches. AdamW's steps do not depend on the size of a gradient: without it these layers, which begin
at 0, change the tokens faster than encoders from scratch can follow."""


class IntraModalRelations(nn.Module):
    """Self-attention over the strongest relations of each token, then a feed-forward layer, each added to the token.

    Both start at 0 and read normalised tokens, so that an untrained layer leaves the tokens as they are.

    Args:
        dim: size of the tokens, a multiple of ``heads``.
        mode: ``topk`` keeps the k strongest relations of every token, anew for every input; ``full`` keeps all of
            them; ``static`` learns relations of positions, the same for every input; ``off`` leaves the tokens alone.
        k: relations kept by ``topk``.
        heads: number of attention heads.
        dropout: probability, in training, of dropping a unit of either residual branch.
    """

    def __init__(self, dim: int, mode: Intra = "topk", k: int = 8, heads: int = 4, dropout: float = 0.1) -> None:
        super().__init__()
        self.mode, self.k, self.heads = mode, k, heads
        if mode == "off":
            return
        self.query, self.key, self.value, self.out = (nn.Linear(dim, dim) for _ in range(4))
        self.norm, self.feed_forward_norm = nn.LayerNorm(dim), nn.LayerNorm(dim)
        last = nn.Linear(2 * dim, dim)
        self.feed_forward = nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), last)
        self.dropout = nn.Dropout(dropout)
        for layer in (self.out, last):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Tokens `[B, N, D]` with mask, bool `[B, N]` -> tokens `[B, N, D]`; padded ones are never looked at."""
        if self.mode == "off":
            return tokens
        content = self.norm(tokens)
        related = position_codes(tokens) if self.mode == "static" else content
        query, key, value = (
            self._split(layer(source))
            for layer, source in ((self.query, related), (self.key, related), (self.value, content))
        )
        strength = (query @ key.transpose(2, 3)).float() / math.sqrt(query.shape[-1])
        strength = strength.masked_fill(~mask[:, None, None, :], -torch.inf)
        if self.mode == "topk" and self.k < strength.shape[-1]:
            weakest = strength.detach().topk(self.k, dim=-1).values[..., -1:]
            strength = strength.masked_fill(strength < weakest, -torch.inf)
        # An item without a real token has no relation at all: weights 0, where softmax alone gives NaN.
        weights = strength.masked_fill(~mask.any(1)[:, None, None, None], 0.0).softmax(-1).to(value.dtype)
        seen = (weights @ value).transpose(1, 2).flatten(2)
        tokens = tokens + BRANCH * self.dropout(self.out(seen))
        return tokens + BRANCH * self.dropout(self.feed_forward(self.feed_forward_norm(tokens)))

    def _split(self, tokens: Tensor) -> Tensor:
        """`[B, N, D]` -> `[B, H, N, D / H]`."""
        return tokens.unflatten(2, (self.heads, -1)).transpose(1, 2)


def position_codes(tokens: Tensor) -> Tensor:
    """Sinusoidal codes of the places of tokens `[B, N, D]` from 0, the same shape."""
    codes = sinusoids(torch.arange(tokens.shape[1], device=tokens.device), tokens.shape[2])
    return codes.to(tokens.dtype).expand_as(tokens)
