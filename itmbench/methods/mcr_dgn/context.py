"""Mutual context: which nodes of the bank a node is connected with, found anew for every item.

A node t and a node j of the bank are connected if each is among the k nearest of the other. Neighbourhoods are fuzzy
sets, with the memberships m_t(j) of `itmbench.methods.neighbours`, so that an edge fades out where it would disappear.
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import normalize

from itmbench.methods.neighbours import fading_top, handicaps, identity, membership

Rule = Literal["mutual", "nearest"]

_TILE = 1 << 24
"""Most cosines in memory at a time."""
_FEW = 0.2
"""Share of the bank's nodes up to which only their own limits are computed, and not those of all."""


class Edges(NamedTuple):
    """Edges of B nodes to at most k nodes of the bank."""

    source: Tensor  # rows of the bank, int64 `[B, k]`
    cosine: Tensor  # float32 `[B, k]`
    weight: Tensor  # how far the edge exists, float32 `[B, k]` in [0, 1]


class Context:
    """Nodes of one kind that the bank holds, and the neighbourhood of each among the others.

    Vectors are compared relative to their mean, which says nothing about who is near whom.

    Args:
        vectors: of the nodes `[N, D]`.
        k: neighbours of a node.
        rule: "mutual": an edge has the weight m_t(j) m_j(t); "nearest": m_t(j), whether or not t is near j.
    """

    def __init__(self, vectors: Tensor, k: int, rule: Rule) -> None:
        self.k, self.mean = k, vectors.float().mean(0)
        self.vectors = self._centred(vectors)
        self._penalty = handicaps(len(vectors), vectors.device)
        self.mutual = rule == "mutual"
        self._limits = self.vectors.new_full((len(vectors), 2), torch.nan)
        self._complete = False

    def attach(self, vectors: Tensor, hidden: Tensor | None = None) -> Edges:
        """Connect nodes, each on its own, with the bank's.

        Args:
            vectors: of the nodes `[B, D]`.
            hidden: how far each node of the bank is hidden from each of them, float32 `[B, N]` in [0, 1].
        """
        with torch.autocast(vectors.device.type, enabled=False):
            cosines = self._centred(vectors) @ self.vectors.T
            values, source, weight, _ = fading_top(cosines - self._penalty, self.k)
            cosine = values + self._penalty[source]
            if self.mutual:
                weight = weight * membership(cosine, self.limits(source))
        if hidden is not None:
            weight = weight * (1 - hidden.gather(1, source))
        return Edges(source, cosine, weight)

    def copies(self, vectors: Tensor) -> Tensor:
        """How far each node of the bank is the same as each of the given ones, float32 `[B, N]` in [0, 1]."""
        source, unit = self.attach(vectors).source, self._centred(vectors)
        same = identity(unit.unsqueeze(1), self.vectors[source])
        return same.new_zeros(len(vectors), len(self.vectors)).scatter_(1, source, same)

    def _centred(self, vectors: Tensor) -> Tensor:
        return normalize(vectors.float() - self.mean, dim=1)

    def limits(self, nodes: Tensor) -> Tensor:
        """Where the neighbourhoods of some nodes of the bank among its other nodes end and fade, float32 `[..., 2]`.

        They are found when first needed: one item needs those of a few nodes, a batch those of nearly all.
        """
        if not self._complete:
            wanted = nodes.unique()
            wanted = wanted[self._limits[wanted, 1].isnan()]
            if len(wanted) > _FEW * len(self.vectors):
                wanted, self._complete = torch.arange(len(self.vectors), device=nodes.device), True
            for rows in wanted.split(max(1, _TILE // len(self.vectors))) if len(wanted) else ():
                cosines = self.vectors[rows] @ self.vectors.T - self._penalty
                cosines[torch.arange(len(rows)), rows] = -torch.inf
                self._limits[rows] = fading_top(cosines, self.k)[3]
        return self._limits[nodes]
