"""Mutual context: which nodes are mutual nearest neighbours, and how far their neighbourhoods overlap.

Every node has k nearest nodes of each modality by cosine (k of images, k of texts), so the gap between the modalities
cannot crowd out cross-modal edges. Nodes of its own image (its other nodes, its texts) are excluded: a network that
sees its own partner learns to copy it. N(i) is the fuzzy set of neighbours of node i in both modalities, with the
memberships m_i(j) of `itmbench.methods.neighbours`: edge weights and overlaps are continuous in the vectors.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from itmbench.methods.neighbours import SIMILAR, fading_top, handicaps, identity, membership

Rule = Literal["mutual", "union"]
Blocks = Literal["all", "intra", "cross"]

Vectors = tuple[Tensor, Tensor]
"""Vectors of image nodes, and of text nodes."""

_TILE = 1 << 24
"""Most cosines in memory at a time."""
_OVERLAPS = 1 << 24
"""Most pairs of neighbours compared at a time."""


class Excluded(NamedTuple):
    """Images whose nodes targets must not see, any number per target.

    Args:
        target: rows of targets, int64 `[P]`, ascending.
        image: int64 `[P]`.
        share: how far the nodes of the image are hidden, float32 `[P]` in (0, 1]: they keep their places among the
            target's neighbours with less weight. None: they are no neighbours at all.
    """

    target: Tensor
    image: Tensor
    share: Tensor | None = None


@dataclass(frozen=True)
class Nodes:
    """Nodes of both modalities, images first.

    Args:
        vectors: unit vectors `[N, D]`.
        item: the image of each node, int64 `[N]`.
        images: number of image nodes; the rest are text nodes.
    """

    vectors: Tensor
    item: Tensor
    images: int

    def __len__(self) -> int:
        return len(self.item)

    @cached_property
    def modality(self) -> Tensor:
        """0 for image nodes, 1 for text nodes, int64 `[N]`."""
        return (torch.arange(len(self), device=self.item.device) >= self.images).long()

    def part(self, modality: int) -> slice:
        """The rows of a modality."""
        return slice(0, self.images) if modality == 0 else slice(self.images, len(self))


@dataclass(frozen=True)
class Neighbours:
    """The k nearest nodes of each modality, nearest first except where ``HANDICAP`` swaps near ties.

    Args:
        node: int64 `[N, 2, k]`, images, then texts; -1 if there are fewer than k.
        cosine: float32 `[N, 2, k]`; -inf if there are fewer than k.
        member: membership m_i(j), float32 `[N, 2, k]`; 0 if there are fewer than k.
        limit: l and h - l for each modality, float32 `[N, 2, 2]`.
    """

    node: Tensor
    cosine: Tensor
    member: Tensor
    limit: Tensor


@dataclass(frozen=True)
class Edges:
    """Directed edges: the target receives from the source.

    Args:
        source: int64 `[E]`.
        target: int64 `[E]`, ascending.
        cosine: float32 `[E]`.
        weight: how far the edge exists, float32 `[E]` in (0, 1]; 0 at the limit where it would disappear.
        jaccard: |N(target) and N(source)| / |N(target) or N(source)| of the fuzzy sets, float32 `[E]`.
        kind: 2 * modality of the target + modality of the source, int64 `[E]`.
    """

    source: Tensor
    target: Tensor
    cosine: Tensor
    weight: Tensor
    jaccard: Tensor
    kind: Tensor

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, rows: Tensor) -> "Edges":
        return Edges(*(getattr(self, column.name)[rows] for column in fields(self)))


class Context:
    """Nodes that targets attach to, with their neighbours among themselves.

    Args:
        nodes: image and text nodes.
        k: neighbours per modality.
        blocks: modalities in which a node has neighbours: both, its own, or the other.
        keys: vectors `[N, D']` that image targets and text targets compare themselves with; by default
            ``nodes.vectors`` for both.
    """

    def __init__(self, nodes: Nodes, k: int, blocks: Blocks = "all", keys: Vectors | None = None) -> None:
        self.nodes, self.k, self.blocks = nodes, k, blocks
        self.modality = nodes.modality  # computed here: under inference mode, training could not use it
        self.keys = (nodes.vectors, nodes.vectors) if keys is None else keys
        self._order = nodes.item.argsort()
        self._items = nodes.item[self._order].contiguous()
        self._handicap = handicaps(len(nodes), nodes.item.device)
        queries = self.keys[0][nodes.part(0)], self.keys[1][nodes.part(1)]
        self.neighbours = self.nearest(queries, own_images(nodes.item))

    @torch.no_grad()
    def recognised(self, vectors: Vectors) -> Excluded:
        """The images of the nodes that targets are identical with: a target may be the same training item."""
        parts = []
        for start, cosines in self._tiles(vectors):
            modality = int(start >= len(vectors[0]))
            part = self.nodes.part(modality)
            row, twin = (cosines[:, part] > 1 - SIMILAR).nonzero(as_tuple=True)
            row, twin = row + start, twin + part.start
            queries, keys = vectors[modality][row - modality * len(vectors[0])], self.keys[modality][twin]
            parts.append((row, self.nodes.item[twin], identity(queries.float(), keys.float())))
        row, image, share = (torch.cat(column) for column in zip(*parts, strict=True))
        (row, image), pair = torch.stack([row, image]).unique(dim=1, return_inverse=True)
        return Excluded(row, image, share.new_zeros(len(row)).scatter_reduce(0, pair, share, "amax"))

    @torch.no_grad()
    def attach(self, vectors: Vectors, excluded: Excluded, rule: Rule = "mutual") -> Edges:
        """Connect targets, each on its own, with these nodes; targets do not become neighbours themselves.

        The weight of the edge from node j to target t combines m_t(j) with m_j(t), how far t would be in N(j).

        Args:
            vectors: unit vectors of image targets `[T0, D]` and of text targets `[T1, D]`.
            excluded: nodes that targets must not see.
            rule: "mutual": both must be neighbours of each other, with weight m_t(j) m_j(t); "union": one of them,
                with weight 1 - (1 - m_t(j)) (1 - m_j(t)).
        """
        nearest = self.nearest(vectors, excluded)
        modality = (torch.arange(len(nearest.node), device=nearest.node.device) >= len(vectors[0])).long()
        target, _, _ = slots = (nearest.member > 0).nonzero(as_tuple=True)
        source, cosine, member = nearest.node[slots], nearest.cosine[slots], nearest.member[slots]
        reverse = membership(cosine, self.neighbours.limit[source, modality[target]])
        if rule == "mutual":
            weight = member * reverse
        else:
            weight = 1 - (1 - member) * (1 - reverse * self._visible(target, source, excluded))
            more = self._reverse_edges(vectors, excluded, nearest)
            columns = zip((source, target, cosine, weight), more, strict=True)
            source, target, cosine, weight = (torch.cat(pair) for pair in columns)
            order = target.argsort(stable=True)
            source, target, cosine, weight = source[order], target[order], cosine[order], weight[order]
        kept = weight > 0
        source, target, cosine, weight = source[kept], target[kept], cosine[kept], weight[kept]
        overlap = jaccard(_sets(nearest), _sets(self.neighbours), target, source)
        return Edges(source, target, cosine, weight, overlap, 2 * modality[target] + self.modality[source])

    @torch.no_grad()
    def nearest(self, vectors: Vectors, excluded: Excluded) -> Neighbours:
        """Neighbours of targets among these nodes; arguments as in ``attach``."""
        shape, device = (len(vectors[0]) + len(vectors[1]), 2, self.k), self.nodes.item.device
        node, cosine = torch.full(shape, -1, device=device), torch.full(shape, -torch.inf, device=device)
        member, limit = torch.zeros(shape, device=device), torch.zeros(*shape[:2], 2, device=device)
        limit[..., 0], limit[..., 1] = -torch.inf, 1
        for start, cosines in self._tiles(vectors, excluded):
            rows = slice(start, start + len(cosines))
            modality = int(start >= len(vectors[0]))
            for other in (0, 1):
                if self._apart(modality, other):
                    continue
                part = self.nodes.part(other)
                handicap = self._handicap[part]
                values, indices, fading, limit[rows, other] = fading_top(cosines[:, part].sub_(handicap), self.k)
                count, missing = values.shape[1], values == -torch.inf
                cosine[rows, other, :count] = values + handicap[indices]
                node[rows, other, :count] = (indices + part.start).masked_fill(missing, -1)
                member[rows, other, :count] = fading
        if excluded.share is not None:
            target, _, _ = slots = (node >= 0).nonzero(as_tuple=True)
            member[slots] *= self._visible(target, node[slots], excluded)
        return Neighbours(node, cosine, member, limit)

    def _visible(self, target: Tensor, source: Tensor, excluded: Excluded) -> Tensor:
        """How far targets see sources, float32 `[E]`: 1 unless the source's image is partly hidden from the target."""
        visible = torch.ones(len(target), device=target.device)
        if excluded.share is None or not len(excluded.share):
            return visible
        stride = int(max(self.nodes.item.max(), excluded.image.max())) + 1
        pairs, order = (excluded.target * stride + excluded.image).sort()
        edges = target * stride + self.nodes.item[source]
        index = torch.searchsorted(pairs, edges).clamp(max=len(pairs) - 1)
        return visible - excluded.share[order][index] * (pairs[index] == edges)

    def _apart(self, modality: int, other: int) -> bool:
        """Whether ``blocks`` forbids edges between two modalities."""
        return {"all": False, "intra": modality != other, "cross": modality == other}[self.blocks]

    def _reverse_edges(self, vectors: Vectors, excluded: Excluded, nearest: Neighbours) -> tuple[Tensor, ...]:
        """Source, target, cosine and weight where the target is a neighbour of the source, but not the reverse."""
        parts = []
        for start, cosines in self._tiles(vectors, excluded):
            modality = int(start >= len(vectors[0]))
            connected = (cosines > -torch.inf) & (cosines > self.neighbours.limit[:, modality, 0])
            for other in (0, 1):
                if self._apart(modality, other):
                    connected[:, self.nodes.part(other)] = False
            members = nearest.member[start : start + len(cosines)].flatten(1)
            row, slot = (members > 0).nonzero(as_tuple=True)
            connected[row, nearest.node.flatten(1)[row + start, slot]] = False
            row, source = connected.nonzero(as_tuple=True)
            cosine, target = cosines[row, source], row + start
            weight = membership(cosine, self.neighbours.limit[source, modality])
            parts.append((source, target, cosine, weight * self._visible(target, source, excluded)))
        return tuple(torch.cat(column) for column in zip(*parts, strict=True))

    def _tiles(self, vectors: Vectors, excluded: Excluded | None = None) -> Iterator[tuple[int, Tensor]]:
        """Yield the first row of a tile of targets and their cosines, float32 `[rows, N]`; -inf for excluded nodes."""
        height = max(1, _TILE // max(1, len(self.nodes)))
        start = 0
        for modality, targets in enumerate(vectors):
            keys = self.keys[modality].float().T
            for rows in targets.float().split(height) if len(targets) else ():
                with torch.autocast(rows.device.type, enabled=False):
                    cosines = rows @ keys
                if excluded is not None and excluded.share is None:
                    bounds = torch.tensor([start, start + len(rows)], device=excluded.target.device)
                    first, last = torch.searchsorted(excluded.target, bounds).tolist()
                    self._exclude(cosines, excluded.target[first:last] - start, excluded.image[first:last])
                yield start, cosines
                start += len(rows)

    def _exclude(self, cosines: Tensor, row: Tensor, image: Tensor) -> None:
        """Set the cosines `[B, N]` of the given rows with the nodes of the given images to -inf."""
        first = torch.searchsorted(self._items, image)
        counts = torch.searchsorted(self._items, image, right=True) - first
        # In this order the nodes of an image are adjacent, at first, first + 1, ...
        offset = (first - counts.cumsum(0) + counts).repeat_interleave(counts)
        positions = torch.arange(len(offset), device=row.device) + offset
        cosines[row.repeat_interleave(counts), self._order[positions]] = -torch.inf


def own_images(item: Tensor) -> Excluded:
    """Exclude, for targets of the given images, int64 `[T]`, the nodes of their own image."""
    return Excluded(torch.arange(len(item), device=item.device), item)


FuzzySets = tuple[Tensor, Tensor]
"""Distinct nodes, int64 `[N, S]`, -1 in an empty slot, and their memberships, float32 `[N, S]`, 0 in an empty slot."""


def jaccard(target_sets: FuzzySets, source_sets: FuzzySets, target: Tensor, source: Tensor) -> Tensor:
    """Jaccard overlap of the fuzzy neighbour sets at the two ends of each edge, float32 `[E]`: sum of the smaller
    memberships over sum of the larger ones."""
    sizes = [members.sum(1) for _, members in (target_sets, source_sets)]
    parts = []
    for t, s in zip(
        *(side.split(max(1, _OVERLAPS // target_sets[0].shape[1] ** 2)) for side in (target, source)), strict=True
    ):
        equal = target_sets[0][t].unsqueeze(2) == source_sets[0][s].unsqueeze(1)
        smaller = torch.minimum(target_sets[1][t].unsqueeze(2), source_sets[1][s].unsqueeze(1))
        common = (smaller * equal).sum((1, 2))
        parts.append(common / (sizes[0][t] + sizes[1][s] - common).clamp(min=1e-6))
    return torch.cat(parts)


def _sets(neighbours: Neighbours) -> FuzzySets:
    return neighbours.node.flatten(1), neighbours.member.flatten(1)
