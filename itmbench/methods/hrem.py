"""HREM (Fu et al., CVPR 2023): relations among the tokens of an item and, in training only, among instances."""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import kl_div, normalize, scaled_dot_product_attention

from itmbench.encoders import Embeddings, masked_mean
from itmbench.errors import InputError
from itmbench.methods.base import Batch, Matcher, Modality
from itmbench.methods.losses import InfoNCE, TripletLoss

TEMPERATURE = 0.1
"""Temperature at which the score distributions with and without the graph are compared."""
_MAX_COSINES = 1 << 26
"""Most token cosines in memory while instances are compared by their tokens."""


class HREM(Matcher):
    """Pool token relations; in training, also relate the instances of the batch in a graph that is dropped at test.

    Args:
        dim: D, size of the common space, a multiple of ``heads``.
        heads: attention heads of the relation layers.
        dropout: probability of dropping a unit or an attention weight of the relation layers in training.
        residual: share of the tokens' largest values in the pooled vector; the rest comes from their relations.
        connections: share of the images and of the texts of a batch that an instance is connected with in training.
        relation_weight: weight of the graph losses; 0 trains without a graph.
        agreement_weight: weight, within the graph losses, of the divergence between the scores with and without graph.
        loss: loss on the in-batch scores; by default the triplet loss with the hardest negatives after
            1,000 steps with all.
        **kwargs: arguments of ``Matcher``.

    Raises:
        InputError: ``dim`` is not a multiple of ``heads``, or ``connections`` is not a share above 0.
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
            raise InputError(f"HREM: connections is {connections}; give a share of the batch above 0 and at most 1")
        self.pool = self.per_modality(lambda width: RelationPooling(width, dim, heads, dropout, residual))
        self.connections, self.relation_weight, self.agreement_weight = connections, relation_weight, agreement_weight
        self.loss = TripletLoss(warmup_steps=1000) if loss is None else loss
        if relation_weight:
            self.graph = RelationLayer(dim, heads, dropout)
            self.graph_loss = copy.deepcopy(self.loss)

    def embed(self, items: Embeddings, modality: Modality) -> Embeddings:
        """Pooled vectors; in training also the tokens, by which the graph compares instances."""
        tokens, pooled = self.pool[modality](items.tokens, items.mask)
        if self.training and self.relation_weight:
            return Embeddings(pooled, tokens, items.mask)
        return Embeddings(pooled)

    def training_loss(self, batch: Batch) -> Tensor:
        image, text, positives = self.encode_pairs(batch)
        scores = self.score(image, text)
        loss = self.loss(scores, positives)
        if not self.relation_weight:
            return loss
        edges = relation_graph(image, text, positives, self.connections)
        related = self.graph(torch.cat([image.pooled, text.pooled]).unsqueeze(0), edges.unsqueeze(0)).squeeze(0)
        graph_scores = self.score(*(Embeddings(half) for half in related.chunk(2)))
        graph_loss = self.graph_loss(graph_scores, positives)
        return loss + self.relation_weight * (graph_loss + self.agreement_weight * divergence(graph_scores, scores))


class RelationPooling(nn.Module):
    """Pool tokens into one vector: the two largest values per dimension, plus the mean of the tokens' relations."""

    def __init__(self, width: int, dim: int, heads: int, dropout: float, residual: float) -> None:
        super().__init__()
        self.project = nn.Linear(width, dim)
        self.relations = RelationLayer(dim, heads, dropout)
        self.residual = residual

    def forward(self, tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Project tokens `[B, N, W]` with a mask, bool `[B, N]`, to tokens `[B, N, D]` and a unit vector `[B, D]`."""
        tokens = self.project(tokens)
        # An item without tokens attends to its padding, so that no attention is NaN; it still pools to zeros.
        attended = mask | ~mask.any(1, keepdim=True)
        edges = torch.zeros_like(mask, dtype=tokens.dtype).masked_fill(~attended, -torch.inf).unsqueeze(1)
        related = masked_mean(self.relations(tokens, edges), mask)
        return tokens, normalize(self.residual * mean_of_largest(tokens, mask) + (1 - self.residual) * related, dim=-1)


class RelationLayer(nn.Module):
    """A transformer layer (Vaswani et al. 2017) that adds the weight of every edge to its attention logits.

    Dropout acts on the attention weights and on both residual branches.
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
        """Update nodes `[B, N, D]` by edge weights `[B, 1 or N, N]`, -inf for no edge; every row needs an edge."""
        query, key, value = self.query_key_value(nodes).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        attended = scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=edges.unsqueeze(1).to(query.dtype),
            dropout_p=self.dropout.p if self.training else 0.0,
        )
        nodes = self.attention_norm(nodes + self.dropout(self.out(attended.transpose(1, 2).flatten(2))))
        return self.feed_forward_norm(nodes + self.dropout(self.feed_forward(nodes)))


def mean_of_largest(tokens: Tensor, mask: Tensor) -> Tensor:
    """Mean `[B, D]` of the two largest values per dimension of tokens `[B, N, D]` under a mask, bool `[B, N]`.

    The mean of all values if there are fewer; 0 for an item without tokens.
    """
    count = min(2, tokens.shape[1])
    largest = tokens.masked_fill(~mask.unsqueeze(2), -torch.inf).topk(count, dim=1).values
    available = mask.sum(1, keepdim=True).clamp(min=1, max=count)
    return largest.masked_fill(largest == -torch.inf, 0.0).sum(1) / available


def relation_graph(image: Embeddings, text: Embeddings, positives: Tensor, connections: float) -> Tensor:
    """Build the graph of all instances of a batch, images first.

    An instance is connected with itself and, in each modality, with the nearest share of the batch. Positives are
    never connected, within a modality or across: an image that sees its own text learns to copy it. The weights are
    HREM's: exp(-distance) within a modality; across, how well the tokens of one item match the other's. They steer
    the attention and carry no gradient.

    Returns:
        Edge weights, float32 `[2B, 2B]`: the row attends to the column; -inf where there is no edge.
    """
    with torch.no_grad():
        image_to_text, text_to_image = token_relevance(image, text)
        images, texts = (torch.exp(-torch.cdist(x.pooled.float(), x.pooled.float())) for x in (image, text))
        blocks = ((images, image_to_text), (text_to_image, texts))
        edges = torch.cat([torch.cat([_strongest(b, positives, connections) for b in row], dim=1) for row in blocks])
        return edges.fill_diagonal_(1.0)  # exp(-0): the distance of an instance from itself


def token_relevance(image: Embeddings, text: Embeddings) -> tuple[Tensor, Tensor]:
    """Measure how well the tokens of each item match those of each item of the other modality.

    The relevance of item a to item b is the mean, over the real tokens of a, of their largest cosine with a real token
    of b. Returns that of images to texts, float32 `[Ni, Nt]`, and of texts to images `[Nt, Ni]`.
    """
    assert image.tokens is not None and image.mask is not None and text.tokens is not None and text.mask is not None
    regions, words = normalize(image.tokens, dim=-1), normalize(text.tokens, dim=-1)
    height = max(1, _MAX_COSINES // (regions.shape[1] * words.shape[0] * words.shape[1]))
    image_to_text, text_to_image = [], []
    for block, mask in zip(regions.split(height), image.mask.split(height), strict=True):
        cosines = torch.einsum("ind,jmd->ijnm", block, words).float()
        cosines = cosines.masked_fill(~(mask[:, None, :, None] & text.mask[None, :, None, :]), -1.0)
        image_to_text.append(masked_mean(cosines.amax(3).transpose(1, 2), mask))
        text_to_image.append(masked_mean(cosines.amax(2).permute(1, 2, 0), text.mask))
    return torch.cat(image_to_text), torch.cat(text_to_image, dim=1)


def _strongest(weights: Tensor, positives: Tensor, connections: float) -> Tensor:
    """Keep the strongest share of every row of weights `[B, B]`, positives excluded; the rest becomes -inf."""
    allowed = weights.masked_fill(positives, -torch.inf)
    weakest = allowed.topk(max(1, int(connections * len(weights))), dim=1).values[:, -1:]
    return allowed.masked_fill(allowed < weakest, -torch.inf)


def divergence(graph_scores: Tensor, scores: Tensor) -> Tensor:
    """Mean KL divergence of the scores `[B, B]` with the graph from those without it, over both directions.

    Only the scores with the graph receive a gradient, as in HREM: what remains at test teaches the graph. The other
    way round, an untrained graph, which makes all instances alike, would do the same to the embeddings.
    """
    student, teacher = graph_scores.float() / TEMPERATURE, scores.detach().float() / TEMPERATURE
    both = [kl_div(student.log_softmax(d), teacher.log_softmax(d), log_target=True, reduction="sum") for d in (0, 1)]
    return torch.stack(both).mean() / len(scores)
