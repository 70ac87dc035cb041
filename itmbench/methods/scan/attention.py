"""Stacked cross attention: how strongly the tokens of one item answer to each token of another."""

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu, normalize

from itmbench.encoders import Embeddings, masked_mean
from itmbench.methods.cross_attention import safe_sqrt


def unit_tokens(project: nn.Linear, items: Embeddings) -> Embeddings:
    """An encoder's tokens in the common space, float32 of length 1 (padded ones: 0), and their mean."""
    assert items.tokens is not None and items.mask is not None
    tokens = normalize(project(items.tokens).float(), dim=-1).masked_fill(~items.mask.unsqueeze(2), 0.0)
    return Embeddings(masked_mean(tokens, items.mask), tokens, items.mask)


def real_tokens(items: Embeddings) -> Tensor:
    """Tokens float32 `[B, N, D]` with padded ones 0, so that they add nothing to a sum."""
    assert items.tokens is not None and items.mask is not None
    tokens = items.tokens.float()
    # Evaluation has no padding, and a copy of the tokens would cost a tenth of its time.
    return tokens if bool(items.mask.all()) else tokens * items.mask.unsqueeze(2)


def attention(relations: Tensor, sharpness: float) -> Tensor:
    """Weights of own tokens for every foreign token, before they are divided by their sum over the own ones.

    Lee et al., "Stacked Cross Attention for Image-Text Matching", ECCV 2018, section 3.1: relations are clipped,
    normalised over the foreign tokens, and sharpened by a softmax over the own ones. Negative relations are clipped to
    a tenth instead of to 0, as in the authors' code. A padded token is 0 and has relations of 0, which leave the
    norms as they are.

    Args:
        relations: cosines of the N tokens of A own items and the M tokens of F foreign ones `[A, N, F, M]`.
        sharpness: inverse temperature of the softmax.

    Returns:
        `[A, N, F, M]`, above 0.
    """
    clipped = leaky_relu(relations, 0.1)
    # A product with ones adds up a short last dimension faster than a sum does.
    size = safe_sqrt(clipped.square() @ clipped.new_ones(clipped.shape[3]))
    return torch.exp(clipped * (sharpness / size).unsqueeze(3))
