"""Cross-attention between image and text tokens in Gram form: contexts are measured without being formed.

The tokens v_i of one item are attended to by a token t of another, with weights w. The context of t is
x = sum_i w_i v_i / sum_i w_i. All that a score needs of x follows from the cosines s_i = <t, v_i> and the Gram matrix
G_ij = <v_i, v_j> of the attended item:

    <t, x> = sum_i w_i s_i / sum_i w_i        |x|^2 = w' G w / (sum_i w_i)^2

A pair costs one product of tokens with tokens instead of the two that forming the contexts takes.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu, normalize

from itmbench.encoders import Embeddings, masked_mean
from itmbench.encoders.base import padded

EPSILON = 1e-12


def relations(image: Tensor, text: Tensor) -> Tensor:
    """Inner products, float32 `[I, R, T, L]`, of all image tokens `[I, R, D]` with all text tokens `[T, L, D]`."""
    products = image.flatten(0, 1) @ text.flatten(0, 1).T
    return products.float().view(*image.shape[:2], *text.shape[:2])


def gram(tokens: Tensor) -> Tensor:
    """Gram matrices, float32 `[B, N, N]`, of tokens `[B, N, D]`."""
    return (tokens @ tokens.transpose(1, 2)).float()


@dataclass
class Context:
    """Measurements of the contexts that attending tokens t form from the items they attend to; fields of one shape."""

    weight: Tensor  # sum of the attention weights w
    product: Tensor  # <t, x> times that sum
    square: Tensor  # |x|^2 times the square of that sum; never negative

    def mean_product(self) -> Tensor:
        """<t, x>; 0 if t attends to nothing."""
        return self.product / self.weight.clamp(min=EPSILON)

    def norm(self) -> Tensor:
        """|x|; close to 0 if t attends to nothing."""
        return safe_sqrt(self.square / self.weight.square().clamp(min=EPSILON))


def regions_for_words(weights: Tensor, weighted: Tensor, gram: Tensor) -> Context:
    """Measure the context of every word in every image; fields `[I, T, L]`.

    Args:
        weights: nonnegative attention weights, not necessarily normalised `[I, R, T, L]`.
        weighted: ``weights`` times the relations `[I, R, T, L]`.
        gram: Gram matrices of the images `[I, R, R]`.
    """
    mixed = (gram @ weights.flatten(2)).view(weights.shape)
    return Context(weights.sum(1), weighted.sum(1), (weights * mixed).sum(1).clamp(min=0))


def scan_attention(relations: Tensor, sharpness: float) -> Tensor:
    """Attention weights of SCAN, not yet divided by their sum over the attended tokens.

    Lee et al., "Stacked Cross Attention for Image-Text Matching", ECCV 2018, section 3.1: clip the relations, normalise
    them over the attending tokens, and sharpen them by a softmax over the attended ones. As in the authors' code,
    negative relations shrink to a tenth instead of being set to 0. Padded tokens are 0, so their relations are 0 and
    leave the norms unchanged.

    Args:
        relations: cosines of the N tokens of A attended items with the M tokens of F attending items `[A, N, F, M]`.
        sharpness: inverse temperature of the softmax.

    Returns:
        `[A, N, F, M]`, above 0.
    """
    clipped = leaky_relu(relations, 0.1)
    # Over a short last dimension, a product with ones is faster than a sum.
    size = safe_sqrt(clipped.square() @ clipped.new_ones(clipped.shape[3]))
    return torch.exp(clipped * (sharpness / size).unsqueeze(3))


def safe_sqrt(squares: Tensor) -> Tensor:
    """Square root whose gradient at 0 is 0 instead of infinite."""
    return squares.clamp(min=EPSILON).sqrt()


def project_tokens(project: nn.Module, items: Embeddings) -> Embeddings:
    """Project an encoder's tokens to unit length, float32 (0 for padding), and pool them by their mean."""
    assert items.tokens is not None and items.mask is not None
    tokens = normalize(project(items.tokens).float(), dim=-1).masked_fill(~items.mask.unsqueeze(2), 0.0)
    return Embeddings(masked_mean(tokens, items.mask), tokens, items.mask)


def zero_padded_tokens(items: Embeddings) -> Tensor:
    """Tokens, float32 `[B, N, D]`, with 0 for padding, so that padding adds nothing to a sum."""
    assert items.tokens is not None and items.mask is not None
    tokens = items.tokens.float()
    # Evaluation has no padding, and copying the tokens would cost a tenth of its time.
    return tokens * items.mask.unsqueeze(2).float() if padded(items.mask) else tokens
