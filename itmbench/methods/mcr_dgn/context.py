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


class Edges(NamedTuple):
    """Edges of B nodes to at most k nodes of the bank.

    Args:
        source: rows of the bank, int64 `[B, k]`.
        cosine: float32 `[B, k]`.
        weight: how far the edge exists, float32 `[B, k]` in [0, 1].
    """

    source: Tensor
    cosine: Tensor
    weight: Tensor


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
        self.limit = self._limits() if rule == "mutual" else None

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
        if self.limit is not None:
            weight = weight * membership(cosine, self.limit[source])
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

    def _limits(self) -> Tensor:
        """Where the neighbourhood of each node among the other nodes ends and fades, float32 `[N, 2]`."""
        parts, start = [], 0
        for rows in self.vectors.split(max(1, _TILE // len(self.vectors))):
            cosines = rows @ self.vectors.T - self._penalty
            cosines[torch.arange(len(rows)), torch.arange(len(rows)) + start] = -torch.inf
            parts.append(fading_top(cosines, self.k)[3])
            start += len(rows)
        return torch.cat(parts)
