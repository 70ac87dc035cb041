"""HREM's relations: a transformer layer that edge weights steer, and the graph of the instances of a batch."""

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize, scaled_dot_product_attention

from itmbench.encoders import Embeddings, masked_mean
from itmbench.errors import InputError

_RELATIONS = 1 << 26
"""Most relations (region x word) that are held at a time while instances are compared by their tokens."""


class RelationLayer(nn.Module):
    """A transformer layer (Vaswani et al. 2017) with a weight of every edge added to its attention logits.

    Args:
        dim: size of the nodes, a multiple of ``heads``.
        heads: number of attention heads.
        dropout: probability, in training, of dropping an attention weight or a unit of either residual branch.
    """

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        if dim % heads:
            raise InputError(f"HREM: dim {dim} is not a multiple of heads {heads}; change one of them")
        self.heads = heads
        self.query_key_value, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.feed_forward = nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, dim))
        self.attention_norm, self.feed_forward_norm = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, nodes: Tensor, edges: Tensor) -> Tensor:
        """Nodes `[B, N, D]` with edges `[B, 1 or N, N]`, -inf where there is none, to `[B, N, D]`; none without any."""
        query, key, value = self.query_key_value(nodes).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        seen = scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=edges.unsqueeze(1).to(query.dtype),
            dropout_p=self.dropout.p if self.training else 0.0,
        )
        nodes = self.attention_norm(nodes + self.dropout(self.out(seen.transpose(1, 2).flatten(2))))
        return self.feed_forward_norm(nodes + self.dropout(self.feed_forward(nodes)))


def relation_graph(image: Embeddings, text: Embeddings, positives: Tensor, connections: float) -> Tensor:
    """Edges between all instances of a batch, images first: the weight where connected, else -inf.

    An instance is connected with itself and, in each modality, with its nearest share of the batch. What belongs
    together is never connected, within a modality or across: an image that saw its own text would learn to copy it.
    Weights are those of HREM: exp(-distance) within a modality; across, how well the tokens of one are found in the
    other. They steer the attention and carry no gradient.

    Args:
        image: of B pairs, pooled normalised.
        text: of the same pairs, pooled normalised.
        positives: pairs that belong together, bool `[B, B]`.
        connections: share of the batch that an instance is connected with, of each modality.

    Returns:
        float32 `[2B, 2B]`; row: who looks, column: at whom.
    """
    with torch.no_grad():
        image_to_text, text_to_image = token_relevance(image, text)
        alike = [torch.exp(-torch.cdist(items.pooled.float(), items.pooled.float())) for items in (image, text)]
        blocks = ((alike[0], image_to_text), (text_to_image, alike[1]))
        edges = torch.cat([torch.cat([_strongest(b, positives, connections) for b in row], dim=1) for row in blocks])
        return edges.fill_diagonal_(1.0)  # exp(-0): the distance of an instance from itself


def token_relevance(image: Embeddings, text: Embeddings) -> tuple[Tensor, Tensor]:
    """How well every image's tokens are found in every text, and every text's in every image.

    The mean over the looking item's real tokens of their largest cosine with a real token of the other.

    Returns:
        Image to text float32 `[Ni, Nt]` and text to image `[Nt, Ni]`.
    """
    assert image.tokens is not None and image.mask is not None and text.tokens is not None and text.mask is not None
    regions, words = normalize(image.tokens, dim=-1), normalize(text.tokens, dim=-1)
    height = max(1, _RELATIONS // (regions.shape[1] * words.shape[0] * words.shape[1]))
    image_to_text, text_to_image = [], []
    for some, real in zip(regions.split(height), image.mask.split(height), strict=True):
        cosines = torch.einsum("ind,jmd->ijnm", some, words).float()
        cosines = cosines.masked_fill(~(real[:, None, :, None] & text.mask[None, :, None, :]), -1.0)
        image_to_text.append(masked_mean(cosines.amax(3).transpose(1, 2), real))
        text_to_image.append(masked_mean(cosines.amax(2).permute(1, 2, 0), text.mask))
    return torch.cat(image_to_text), torch.cat(text_to_image, dim=1)


def _strongest(weights: Tensor, positives: Tensor, connections: float) -> Tensor:
    """Weights `[B, B]` of the strongest share of every row, of those that are no positives; -inf elsewhere."""
    allowed = weights.masked_fill(positives, -torch.inf)
    weakest = allowed.topk(max(1, int(connections * len(weights))), dim=1).values[:, -1:]
    return allowed.masked_fill(allowed < weakest, -torch.inf)
