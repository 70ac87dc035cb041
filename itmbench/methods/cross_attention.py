"""Cross attention of image and text tokens in Gram form: contexts are measured, never formed.

An item's tokens v_i attend to a foreign token t with weights w: its context is x = sum_i w_i v_i / sum_i w_i. All that
a score needs of x follows from the relations s_i = <t, v_i> and the item's Gram matrix G_ij = <v_i, v_j>:

    <t, x> = sum_i w_i s_i / sum_i w_i        |x|^2 = w' G w / (sum_i w_i)^2

so a pair costs one product of tokens with tokens, not the two that contexts take.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu, normalize

from itmbench.encoders import Embeddings, masked_mean

EPSILON = 1e-12


def relations(image: Tensor, text: Tensor) -> Tensor:
    """Inner products of all tokens, float32 `[I, R, T, L]`, of image tokens `[I, R, D]` and text tokens `[T, L, D]`."""
    products = image.flatten(0, 1) @ text.flatten(0, 1).T
    return products.float().view(*image.shape[:2], *text.shape[:2])


def gram(tokens: Tensor) -> Tensor:
    """Gram matrices float32 `[B, N, N]` of tokens `[B, N, D]`."""
    return (tokens @ tokens.transpose(1, 2)).float()


@dataclass
class Context:
    """What is known of the context that each item gives to each foreign token.

    Args:
        weight: sum of the weights w.
        product: <t, x> times that sum.
        square: |x|^2 times its square, never negative.
    """

    weight: Tensor
    product: Tensor
    square: Tensor

    def mean_product(self) -> Tensor:
        """<t, x>; 0 where no token was attended to."""
        return self.product / self.weight.clamp(min=EPSILON)

    def norm(self) -> Tensor:
        """|x|; next to 0 where no token was attended to."""
        return safe_sqrt(self.square / self.weight.square().clamp(min=EPSILON))


def regions_for_words(weights: Tensor, weighted: Tensor, gram: Tensor) -> Context:
    """The context of every word in every image, fields `[I, T, L]`.

    Args:
        weights: at least 0, of any sum `[I, R, T, L]`.
        weighted: the relations times their weights `[I, R, T, L]`.
        gram: of the images `[I, R, R]`.
    """
    mixed = (gram @ weights.flatten(2)).view(weights.shape)
    return Context(weights.sum(1), weighted.sum(1), (weights * mixed).sum(1).clamp(min=0))


def words_for_regions(weights: Tensor, weighted: Tensor, gram: Tensor) -> Context:
    """The context of every region in every text, fields `[I, R, T]`.

    Args:
        weights: at least 0, of any sum `[I, R, T, L]`.
        weighted: the relations times their weights `[I, R, T, L]`.
        gram: of the texts `[T, L, L]`.
    """
    # A product with ones adds up a short last dimension faster than a sum does.
    ones = weights.new_ones(weights.shape[3])
    mixed = (weights.flatten(0, 1).transpose(0, 1) @ gram).transpose(0, 1).view(weights.shape)
    return Context(weights @ ones, weighted @ ones, ((weights * mixed) @ ones).clamp(min=0))


def safe_sqrt(squares: Tensor) -> Tensor:
    """Square root, with gradient 0 instead of infinity where nothing is left."""
    return squares.clamp(min=EPSILON).sqrt()


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
