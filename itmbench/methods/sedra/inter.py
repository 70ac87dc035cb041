"""Inter-modal dynamic relation awareness (Fig. 3): which words and regions of a pair are related, and how strongly."""

import math
from typing import Literal

import torch
from torch import Tensor, nn

from itmbench.encoders.base import padded
from itmbench.methods.losses import bounded_exp
from itmbench.methods.sedra.intra import kth_largest

Inter = Literal["off", "full", "topk", "topk+neg"]


class InterModalRelations(nn.Module):
    """Turn cosines of words and regions into relation weights and evidence against a match.

    With c the cosine of a word and a region, tau a learned threshold and s a learned sharpness, ``full`` weighs the
    relation by exp(s c). The ``topk`` modes weigh it by exp(s max(0, c - tau)) - 1 and keep only the m strongest
    regions of each word. Noise at or below the threshold is pruned. The weight fades to 0 at the threshold, so the
    threshold receives a gradient. ``topk+neg`` also measures how far the strongest relation of a word falls below the
    threshold (negative evidence, after NAAF; Zhang et al., CVPR 2022).

    Args:
        mode: see above; ``off`` relates every word to every region with equal weight.
        m: regions kept per word.
        sharpness: initial s; it stays at or below 15, so that every weight fits float32.
        threshold: initial tau.
    """

    def __init__(self, mode: Inter = "topk+neg", m: int = 8, sharpness: float = 9.0, threshold: float = 0.0) -> None:
        super().__init__()
        self.mode, self.m = mode, m
        self.log_sharpness = nn.Parameter(torch.tensor(math.log(sharpness)), requires_grad=mode != "off")
        self.threshold = nn.Parameter(torch.tensor(threshold), requires_grad=mode.startswith("topk"))

    def forward(self, cosines: Tensor, image_mask: Tensor, text_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Compute weights and evidence.

        Args:
            cosines: `[I, R, T, L]`.
            image_mask: true for real regions, bool `[I, R]`.
            text_mask: true for real words, bool `[T, L]`.

        Returns:
            Nonnegative weights `[I, R, T, L]` and evidence, at most 0, `[I, T, L]`; both are 0 for padding.
        """
        no_evidence = cosines.new_zeros(len(cosines), *cosines.shape[2:])
        if self.mode == "off":
            return _mask_padding(torch.ones_like(cosines), image_mask, text_mask), no_evidence
        sharpness = bounded_exp(self.log_sharpness, 15.0)
        if self.mode == "full":
            return _mask_padding((sharpness * (cosines - 1)).exp(), image_mask, text_mask), no_evidence
        above = cosines - self.threshold
        kept = _mask_padding(above.clamp(min=0), image_mask, text_mask)
        weights = (sharpness * self._strongest(kept)).exp() - 1
        if self.mode == "topk":
            return weights, no_evidence
        if padded(image_mask):
            above = above - 4.0 * (~image_mask)[:, :, None, None]  # below every cosine
        evidence = above.amax(1).clamp(max=0) * text_mask.float()
        return weights, evidence * image_mask.any(1)[:, None, None].float()

    def _strongest(self, kept: Tensor) -> Tensor:
        """Keep the m largest relations of each word and set the rest to 0, `[I, R, T, L]`."""
        if self.m >= kept.shape[1]:
            return kept
        values = kept.detach()
        return kept * torch.ge(values, kth_largest(values, self.m, dim=1), out=torch.empty_like(values))


def _mask_padding(weights: Tensor, image_mask: Tensor, text_mask: Tensor) -> Tensor:
    """Set the weights `[I, R, T, L]` of padding to 0; float masks are five times as fast as bool ones."""
    if padded(image_mask):
        weights = weights * image_mask[:, :, None, None].float()
    if padded(text_mask):
        weights = weights * text_mask.float()
    return weights
