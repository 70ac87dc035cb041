"""Mutual context: which nodes are mutual nearest neighbours, and how far their neighbourhoods overlap.

Every node has k nearest nodes of each modality by cosine (k of images, k of texts), so the gap between the modalities
cannot crowd out cross-modal edges. Nodes of its own image (its other nodes, its texts) are excluded: a network that
sees its own partner learns to copy it. N(i) is the set of neighbours of node i in both modalities.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

Rule = Literal["mutual", "union"]
Blocks = Literal["all", "intra", "cross"]

Vectors = tuple[Tensor, Tensor]
"""Vectors of image nodes, and of text nodes."""

Excluded = tuple[Tensor, Tensor]
"""Rows of targets and images whose nodes they must not see, int64 `[P]` each, rows ascending; any number per target."""

IDENTICAL = 1e-4
"""Largest 1 - cosine at which a node of unknown image counts as identical to a node of its modality."""
TIE = 1e-5
"""Cosines closer than this tie, so that rounding, which differs between batches, does not decide on an edge."""
HANDICAP = 1e-4
"""Largest penalty on a node's cosines in the neighbour search. Each node has its own share of it, so that the choice
among equally near nodes, such as texts of the same words, is always the same."""
GOLDEN = (5**0.5 - 1) / 2
"""Golden ratio: its multiples modulo 1 are spread as evenly as possible."""
_TILE = 1 << 24
"""Most cosines in memory at a time."""
_OVERLAPS = 1 << 24
"""Most pairs of neighbours compared at a time."""


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
    """

    node: Tensor
    cosine: Tensor


@dataclass(frozen=True)
class Edges:
    """Directed edges: the target receives from the source.

    Args:
        source: int64 `[E]`.
        target: int64 `[E]`, ascending.
        cosine: float32 `[E]`.
        jaccard: |N(target) and N(source)| / |N(target) or N(source)|, float32 `[E]`.
        kind: 2 * modality of the target + modality of the source, int64 `[E]`.
    """

    source: Tensor
    target: Tensor
    cosine: Tensor
    jaccard: Tensor
    kind: Tensor

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, rows: Tensor) -> "Edges":
        return Edges(self.source[rows], self.target[rows], self.cosine[rows], self.jaccard[rows], self.kind[rows])


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
        positions = torch.arange(len(nodes), device=nodes.item.device, dtype=torch.float64)
        self._handicap = (HANDICAP * (positions * GOLDEN % 1)).float()
        queries = self.keys[0][nodes.part(0)], self.keys[1][nodes.part(1)]
        self.neighbours = self.nearest(queries, own_images(nodes.item))

    @torch.no_grad()
    def recognised(self, vectors: Vectors) -> Excluded:
        """The images of the nodes that targets are identical with: a target may be the same training item."""
        parts = []
        for start, cosines in self._tiles(vectors):
            part = self.nodes.part(int(start >= len(vectors[0])))
            row, twin = (cosines[:, part] >= 1 - IDENTICAL).nonzero(as_tuple=True)
            parts.append(torch.stack([row + start, self.nodes.item[twin + part.start]]))
        row, image = torch.cat(parts, dim=1)
        return row, image

    @torch.no_grad()
    def attach(self, vectors: Vectors, excluded: Excluded, rule: Rule = "mutual") -> Edges:
        """Connect targets, each on its own, with these nodes; targets do not become neighbours themselves.

        A target t and a node j are mutual neighbours if j is in N(t) and t would be in N(j), that is, if the cosine of
        t and j reaches that of j's k-th neighbour of t's modality.

        Args:
            vectors: unit vectors of image targets `[T0, D]` and of text targets `[T1, D]`.
            excluded: nodes that targets must not see.
            rule: "mutual": both must be neighbours of each other; "union": one of them.
        """
        nearest = self.nearest(vectors, excluded)
        modality = (torch.arange(len(nearest.node), device=nearest.node.device) >= len(vectors[0])).long()
        target, _, _ = slots = (nearest.node >= 0).nonzero(as_tuple=True)
        source, cosine = nearest.node[slots], nearest.cosine[slots]
        if rule == "mutual":
            kept = cosine >= self._weakest[source, modality[target]]
            source, target, cosine = source[kept], target[kept], cosine[kept]
        else:
            reverse = self._reverse_edges(vectors, excluded, nearest)
            source, target, cosine = (torch.cat(pair) for pair in zip((source, target, cosine), reverse, strict=True))
            order = target.argsort(stable=True)
            source, target, cosine = source[order], target[order], cosine[order]
        overlap = jaccard(nearest.node.flatten(1), self.neighbours.node.flatten(1), target, source)
        return Edges(source, target, cosine, overlap, 2 * modality[target] + self.modality[source])

    @torch.no_grad()
    def nearest(self, vectors: Vectors, excluded: Excluded) -> Neighbours:
        """Neighbours of targets among these nodes; arguments as in ``attach``."""
        shape, device = (len(vectors[0]) + len(vectors[1]), 2, self.k), self.nodes.item.device
        node, cosine = torch.full(shape, -1, device=device), torch.full(shape, -torch.inf, device=device)
        for start, cosines in self._tiles(vectors, excluded):
            rows = slice(start, start + len(cosines))
            modality = int(start >= len(vectors[0]))
            for other in (0, 1):
                if self._apart(modality, other):
                    continue
                part = self.nodes.part(other)
                handicap = self._handicap[part]
                top = cosines[:, part].sub_(handicap).topk(min(self.k, part.stop - part.start), dim=1)
                missing = top.values == -torch.inf
                count = top.values.shape[1]
                cosine[rows, other, :count] = top.values + handicap[top.indices]
                node[rows, other, :count] = (top.indices + part.start).masked_fill(missing, -1)
        return Neighbours(node, cosine)

    @property
    def _weakest(self) -> Tensor:
        """Cosine that a target of each modality must reach to be a neighbour of each node `[N, 2]`."""
        return self.neighbours.cosine.amin(2) - TIE

    def _apart(self, modality: int, other: int) -> bool:
        """Whether ``blocks`` forbids edges between two modalities."""
        return {"all": False, "intra": modality != other, "cross": modality == other}[self.blocks]

    def _reverse_edges(
        self, vectors: Vectors, excluded: Excluded, nearest: Neighbours
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Source, target and cosine where the target would be a neighbour of the source, but not the reverse."""
        parts = []
        for start, cosines in self._tiles(vectors, excluded):
            modality = int(start >= len(vectors[0]))
            connected = (cosines > -torch.inf) & (cosines >= self._weakest[:, modality])
            for other in (0, 1):
                if self._apart(modality, other):
                    connected[:, self.nodes.part(other)] = False
            neighbours = nearest.node[start : start + len(cosines)].flatten(1)
            row, slot = (neighbours >= 0).nonzero(as_tuple=True)
            connected[row, neighbours[row, slot]] = False
            row, source = connected.nonzero(as_tuple=True)
            parts.append((source, row + start, cosines[row, source]))
        source, target, cosine = (torch.cat(column) for column in zip(*parts, strict=True))
        return source, target, cosine

    def _tiles(self, vectors: Vectors, excluded: Excluded | None = None) -> Iterator[tuple[int, Tensor]]:
        """Yield the first row of a tile of targets and their cosines, float32 `[rows, N]`; -inf for excluded nodes."""
        height = max(1, _TILE // max(1, len(self.nodes)))
        start = 0
        for modality, targets in enumerate(vectors):
            keys = self.keys[modality].float().T
            for rows in targets.float().split(height) if len(targets) else ():
                with torch.autocast(rows.device.type, enabled=False):
                    cosines = rows @ keys
                if excluded is not None:
                    bounds = torch.tensor([start, start + len(rows)], device=excluded[0].device)
                    first, last = torch.searchsorted(excluded[0], bounds).tolist()
                    self._exclude(cosines, excluded[0][first:last] - start, excluded[1][first:last])
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
    return torch.arange(len(item), device=item.device), item


def jaccard(target_sets: Tensor, source_sets: Tensor, target: Tensor, source: Tensor) -> Tensor:
    """Jaccard overlap of the neighbour sets at the two ends of each edge, float32 `[E]`.

    The rows of ``target_sets`` `[T, S]` and ``source_sets`` `[N, S]` hold distinct nodes, and -1 in an empty slot.
    """
    sizes = [(sets >= 0).sum(1) for sets in (target_sets, source_sets)]
    parts = []
    for t, s in zip(
        *(side.split(max(1, _OVERLAPS // target_sets.shape[1] ** 2)) for side in (target, source)), strict=True
    ):
        nodes = target_sets[t]
        common = ((nodes.unsqueeze(2) == source_sets[s].unsqueeze(1)) & (nodes >= 0).unsqueeze(2)).sum((1, 2))
        parts.append(common / (sizes[0][t] + sizes[1][s] - common).clamp(min=1))
    return torch.cat(parts)
