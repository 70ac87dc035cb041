"""HREM (Fu et al., CVPR 2023): relations of tokens in every item, relations of instances in training alone."""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import kl_div, normalize

from itmbench.encoders import Embeddings, Encoder, masked_mean
from itmbench.encoders.base import Inputs
from itmbench.errors import InputError
from itmbench.losses import InfoNCE, TripletLoss
from itmbench.methods.base import Batch, Matcher
from itmbench.methods.hrem.graph import RelationLayer, relation_graph

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
