"""HREM (Fu et al., CVPR 2023): relations of tokens in every item, relations of instances in training alone."""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import kl_div, normalize, scaled_dot_product_attention

from itmbench.encoders import Embeddings, Encoder, masked_mean
from itmbench.encoders.base import Inputs
from itmbench.errors import InputError
from itmbench.methods.base import Batch, Matcher
from itmbench.methods.losses import InfoNCE, TripletLoss

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


TEMPERATURE = 0.1
"""What cosines are divided by before the two score distributions are compared."""


class HREM(Matcher):
    """Pooled token relations, trained beside a graph of the batch's images and texts that is dropped at test.

    Args:
        dim: size of the common space, a multiple of ``heads``.
        heads: attention heads of the relation layers.
        dropout: probability, in training, of dropping a unit or an attention weight of the relation layers.
        residual: share of the tokens' largest values in the pooled vector; the rest are their relations.
        connections: share of the batch, of each modality, that an instance is connected with in training.
        relation_weight: factor on the losses of the graph; 0 trains without a graph.
        agreement_weight: factor, among these, on the divergence of the graph's scores from those without it.
        loss: of the in-batch scores; the hardest-negative triplet loss by default.
        **kwargs: those of ``Matcher``.
    """

    def __init__(
        self,
        dim: int = 256,
        heads: int = 4,
        dropout: float = 0.1,
        residual: float = 0.8,
        connections: float = 0.5,
        relation_weight: float = 1.0,
        agreement_weight: float = 1.0,
        loss: InfoNCE | TripletLoss | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not 0 < connections <= 1:
            raise InputError(f"HREM: connections {connections} is a share of the batch; choose it above 0, at most 1")
        self.pool_image = RelationPooling(self.image.width, dim, heads, dropout, residual)
        self.pool_text = RelationPooling(self.text.width, dim, heads, dropout, residual)
        self.connections, self.relation_weight, self.agreement_weight = connections, relation_weight, agreement_weight
        self.loss = TripletLoss() if loss is None else loss
        if relation_weight:
            self.graph = RelationLayer(dim, heads, dropout)
            self.graph_loss = copy.deepcopy(self.loss)

    def encode_image(self, images: Inputs) -> Embeddings:
        return self._pool(self.image, self.pool_image, images)

    def encode_text(self, tokens: Inputs) -> Embeddings:
        return self._pool(self.text, self.pool_text, tokens)

    def training_loss(self, batch: Batch) -> Tensor:
        image, text, positives = self.encode_pairs(batch)
        scores = self.score(image, text)
        loss = self.loss(scores, positives)
        if not self.relation_weight:
            return loss
        edges = relation_graph(image, text, positives, self.connections)
        related = self.graph(torch.cat([image.pooled, text.pooled]).unsqueeze(0), edges.unsqueeze(0)).squeeze(0)
        with_graph = self.score(*(Embeddings(half) for half in related.chunk(2)))
        extra = self.graph_loss(with_graph, positives) + self.agreement_weight * divergence(with_graph, scores)
        return loss + self.relation_weight * extra

    def _pool(self, encoder: Encoder, pooling: "RelationPooling", inputs: Inputs) -> Embeddings:
        """Pooled vectors; with their tokens in training, where the graph compares them."""
        encoded = encoder(inputs)
        assert encoded.tokens is not None and encoded.mask is not None
        tokens, pooled = pooling(encoded.tokens, encoded.mask)
        if self.training and self.relation_weight:
            return Embeddings(pooled, tokens, encoded.mask)
        return Embeddings(pooled)


class RelationPooling(nn.Module):
    """Tokens -> one vector: their two largest values in every dimension, and the mean of their relations.

    Args:
        width: size of the encoder's tokens.
        dim: size of the result.
        heads: as for ``RelationLayer``.
        dropout: as for ``RelationLayer``.
        residual: share of the largest values; the rest are the relations.
    """

    def __init__(self, width: int, dim: int, heads: int, dropout: float, residual: float) -> None:
        super().__init__()
        self.project = nn.Linear(width, dim)
        self.relations = RelationLayer(dim, heads, dropout)
        self.residual = residual

    def forward(self, tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens `[B, N, W]` with mask, bool `[B, N]` -> tokens `[B, N, D]` and the normalised vector `[B, D]`."""
        tokens = self.project(tokens)
        # An item without a real token looks at its padding, so that no attention is NaN; it still pools to zeros.
        looked_at = mask | ~mask.any(1, keepdim=True)
        edges = torch.zeros_like(mask, dtype=tokens.dtype).masked_fill(~looked_at, -torch.inf).unsqueeze(1)
        related = masked_mean(self.relations(tokens, edges), mask)
        return tokens, normalize(self.residual * mean_of_largest(tokens, mask) + (1 - self.residual) * related, dim=-1)


def mean_of_largest(tokens: Tensor, mask: Tensor, count: int = 2) -> Tensor:
    """Mean of the ``count`` largest values of every dimension over the real tokens, of all where there are fewer.

    `[B, N, D]`, bool `[B, N]` -> `[B, D]`; zeros where no token is real.
    """
    count = min(count, tokens.shape[1])
    largest = tokens.masked_fill(~mask.unsqueeze(2), -torch.inf).topk(count, dim=1).values
    found = mask.sum(1, keepdim=True).clamp(min=1, max=count)
    return largest.masked_fill(largest == -torch.inf, 0.0).sum(1) / found


def divergence(with_graph: Tensor, plain: Tensor) -> Tensor:
    """How far scores `[B, B]` with the graph are from those without it: the mean KL divergence, of both directions.

    The gradient goes to the former alone. What is left at test guides the graph, as in HREM; the other way round, a
    graph that has learned nothing yet, and makes all instances alike, would do the same to the embeddings.
    """
    student, teacher = with_graph.float() / TEMPERATURE, plain.detach().float() / TEMPERATURE
    both = [kl_div(student.log_softmax(d), teacher.log_softmax(d), log_target=True, reduction="sum") for d in (0, 1)]
    return torch.stack(both).mean() / len(plain)
