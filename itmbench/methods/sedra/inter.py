"""Inter-modal dynamic relation awareness (Fig. 3): which words and regions of a pair are related, and how much."""

import math
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from itmbench.methods.losses import bounded_exp

Inter = Literal["off", "full", "topk", "topk+neg"]


class InterModalRelations(nn.Module):
    """From cosines of words and regions to the weights of their relations, and to evidence against a match.

    With c the cosine of a word and a region, tau a learned threshold and s a learned sharpness, the weight is exp(s c)
    in the mode ``full``. In the modes ``topk`` it is exp(s max(0, c - tau)) - 1, and only for the m strongest regions
    of the word: noise at or below the threshold is pruned, and a relation fades out as it comes near, so that the
    threshold is learned by gradient. ``topk+neg`` also counts how far the strongest relation of a word stays below
    the threshold (negative evidence; after NAAF, Zhang et al., CVPR 2022).

    Args:
        mode: see above; ``off`` relates every word to every region with the same weight.
        m: regions kept for each word.
        sharpness: s at the start; kept below 15, so that no weight leaves the range of float32.
        threshold: tau at the start.
    """

    def __init__(self, mode: Inter = "topk+neg", m: int = 8, sharpness: float = 9.0, threshold: float = 0.0) -> None:
        super().__init__()
        self.mode, self.m = mode, m
        self.log_sharpness = nn.Parameter(torch.tensor(math.log(sharpness)), requires_grad=mode != "off")
        self.threshold = nn.Parameter(torch.tensor(threshold), requires_grad=mode.startswith("topk"))

    def forward(self, cosines: Tensor, image_mask: Tensor, text_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Weights and evidence.

        Args:
            cosines: `[I, R, T, L]`.
            image_mask: true where a region is real, bool `[I, R]`.
            text_mask: true where a word is real, bool `[T, L]`.

        Returns:
            Weights, at least 0, `[I, R, T, L]`, and evidence, at most 0, `[I, T, L]`; both 0 for padding.
        """
        none = cosines.new_zeros(len(cosines), *cosines.shape[2:])
        if self.mode == "off":
            return _real(torch.ones_like(cosines), image_mask, text_mask), none
        sharpness = bounded_exp(self.log_sharpness, 15.0)
        if self.mode == "full":
            return _real((sharpness * (cosines - 1)).exp(), image_mask, text_mask), none
        above = cosines - self.threshold
        kept = _real(above.clamp(min=0), image_mask, text_mask)
        weights = (sharpness * self._strongest(kept)).exp() - 1
        if self.mode == "topk":
            return weights, none
        if not bool(image_mask.all()):
            above = above - 4.0 * (~image_mask)[:, :, None, None]  # below every cosine
        evidence = above.amax(1).clamp(max=0) * text_mask
        return weights, evidence * image_mask.any(1)[:, None, None]

    def _strongest(self, kept: Tensor) -> Tensor:
        """The m largest of each word's relations, the others 0, `[I, R, T, L]`."""
        if self.m >= kept.shape[1]:
            return kept
        values = kept.detach()
        # Ones and zeros as floats: several times as fast as a mask of bools.
        return kept * torch.ge(values, _mth_largest(values, self.m), out=torch.empty_like(values))


def _real(weights: Tensor, image_mask: Tensor, text_mask: Tensor) -> Tensor:
    """Weights `[I, R, T, L]` without those of padding."""
    if not bool(image_mask.all()):
        weights = weights * image_mask[:, :, None, None]
    if not bool(text_mask.all()):
        weights = weights * text_mask
    return weights


def _mth_largest(values: Tensor, m: int) -> Tensor:
    """The m-th largest along dimension 1, which stays with size 1. On a CPU numpy's partition is four times as fast."""
    if values.device.type != "cpu":
        return values.topk(m, dim=1).values[:, -1:]
    at = values.shape[1] - m
    return torch.from_numpy(np.partition(values.numpy(), at, axis=1)[:, at : at + 1])
