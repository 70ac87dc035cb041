"""Mutual context: which nodes are each other's nearest, and how much of their neighbourhoods they share.

Every node has k nearest nodes of each modality (k of images and k of texts), by cosine, so that the gap between the
modalities cannot starve the edges across it. Nodes of its own image (itself, its texts) are never among them: a network
that sees its own partner learns to copy it. N(i) is all of these neighbours together, of both modalities.
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
"""Of nodes of images, and of nodes of texts."""

Own = tuple[Tensor, Tensor]
"""Row of a target and an image whose nodes it must not see, int64 `[P]` each, rows ascending; any number a target."""

IDENTICAL = 1e-4
"""A node whose image is not told is taken for one of its modality that is nearer than this (1 - cosine)."""
TIE = 1e-5
"""Cosines that differ by less than this are a tie: rounding in another batch must not decide on an edge."""
HANDICAP = 1e-4
"""Most that a node's cosines are lowered by when the nearest are looked for, each by its own share: of nodes that are
equally near, such as texts of the same words, always the same is taken."""
GOLDEN = (5**0.5 - 1) / 2
"""Its multiples lie, up to whole numbers, as far from each other as can be."""
_TILE = 1 << 24
"""Most cosines that are held at a time."""
_OVERLAPS = 1 << 24
"""Most pairs of neighbours that are compared at a time."""


@dataclass(frozen=True)
class Nodes:
    """Nodes of both modalities, images first.

    Args:
        vectors: of length 1 `[N, D]`.
        item: the image that each belongs to, int64 `[N]`.
        images: how many of them, from the first, are nodes of images; the others are nodes of texts.
    """

    vectors: Tensor
    item: Tensor
    images: int

    def __len__(self) -> int:
        return len(self.item)

    @cached_property
    def modality(self) -> Tensor:
        """0 of an image, 1 of a text, int64 `[N]`."""
        return (torch.arange(len(self), device=self.item.device) >= self.images).long()

    def part(self, modality: int) -> slice:
        """Where the nodes of a modality stand."""
        return slice(0, self.images) if modality == 0 else slice(self.images, len(self))


@dataclass(frozen=True)
class Neighbours:
    """The k nearest nodes of each modality, nearest first but for what ``HANDICAP`` turns around.

    Args:
        node: int64 `[N, 2, k]`, images, then texts; -1 where there are fewer.
        cosine: float32 `[N, 2, k]`; -inf where there are fewer.
    """

    node: Tensor
    cosine: Tensor


@dataclass(frozen=True)
class Edges:
    """Directed edges: the target looks at the source.

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

    def __getitem__(self, which: Tensor) -> "Edges":
        return Edges(self.source[which], self.target[which], self.cosine[which], self.jaccard[which], self.kind[which])


class Context:
    """Nodes to attach to, with the neighbours that they have among themselves.

    Args:
        nodes: images and texts.
        k: neighbours of each modality.
        blocks: which modalities a node has neighbours of: both, its own, or the other.
        seen: the vectors `[N, D']` by which nodes of images and nodes of texts look at these nodes, where that are not
            ``nodes.vectors``.
    """

    def __init__(self, nodes: Nodes, k: int, blocks: Blocks = "all", seen: Vectors | None = None) -> None:
        self.nodes, self.k, self.blocks = nodes, k, blocks
        self.modality = nodes.modality  # made with the rest: a test would make a tensor that cannot be trained with
        self.seen = (nodes.vectors, nodes.vectors) if seen is None else seen
        self._order = nodes.item.argsort()
        self._items = nodes.item[self._order].contiguous()
        places = torch.arange(len(nodes), device=nodes.item.device, dtype=torch.float64)
        self._handicap = (HANDICAP * (places * GOLDEN % 1)).float()
        self._mine = self.seen[0][nodes.part(0)], self.seen[1][nodes.part(1)]
        self.neighbours = self.nearest(self._mine, own_images(nodes.item))

    def edges(self, rule: Rule = "mutual") -> Edges:
        """The edges of these nodes among themselves."""
        return self._edges(self._mine, own_images(self.nodes.item), self.neighbours, rule)

    @torch.no_grad()
    def recognised(self, vectors: Vectors) -> Own:
        """The images of those of these nodes that targets are identical with: they may be the same training item."""
        parts = []
        for start, cosines in self._tiles(vectors):
            part = self.nodes.part(int(start >= len(vectors[0])))
            row, twin = (cosines[:, part] >= 1 - IDENTICAL).nonzero(as_tuple=True)
            parts.append(torch.stack([row + start, self.nodes.item[twin + part.start]]))
        row, image = torch.cat(parts, dim=1)
        return row, image

    def attach(self, vectors: Vectors, own: Own, rule: Rule = "mutual") -> Edges:
        """The edges of other nodes, each on its own, from these: targets do not become anyone's neighbours.

        A target t and a node j are mutual neighbours if j is in N(t) and t would be in N(j): its cosine with j is not
        below that of j's k-th neighbour of t's modality.

        Args:
            vectors: of target nodes of images `[T0, D]` and of texts `[T1, D]`, of length 1.
            own: what they must not see.
            rule: an edge needs both to be the other's neighbour, or one of them.
        """
        return self._edges(vectors, own, self.nearest(vectors, own), rule)

    @torch.no_grad()
    def nearest(self, vectors: Vectors, own: Own) -> Neighbours:
        """Neighbours, among these nodes, of the targets that ``attach`` takes."""
        shape, device = (len(vectors[0]) + len(vectors[1]), 2, self.k), self.nodes.item.device
        node, cosine = torch.full(shape, -1, device=device), torch.full(shape, -torch.inf, device=device)
        for start, cosines in self._tiles(vectors, own):
            rows = slice(start, start + len(cosines))
            modality = int(start >= len(vectors[0]))
            for other in (0, 1):
                if self._apart(modality, other):
                    continue
                part = self.nodes.part(other)
                handicap = self._handicap[part]
                found = cosines[:, part].sub_(handicap).topk(min(self.k, part.stop - part.start), dim=1)
                missing = found.values == -torch.inf
                count = found.values.shape[1]
                cosine[rows, other, :count] = found.values + handicap[found.indices]
                node[rows, other, :count] = (found.indices + part.start).masked_fill(missing, -1)
        return Neighbours(node, cosine)

    @property
    def _weakest(self) -> Tensor:
        """Cosine that a node of each modality must reach to be among every node's nearest `[N, 2]`."""
        return self.neighbours.cosine.amin(2) - TIE

    def _apart(self, modality: int, other: int) -> bool:
        """Whether nodes of a modality have no neighbours of the other one given."""
        return {"all": False, "intra": modality != other, "cross": modality == other}[self.blocks]

    @torch.no_grad()
    def _edges(self, vectors: Vectors, own: Own, found: Neighbours, rule: Rule) -> Edges:
        modality = (torch.arange(len(found.node), device=found.node.device) >= len(vectors[0])).long()
        target, _, _ = real = (found.node >= 0).nonzero(as_tuple=True)
        source, cosine = found.node[real], found.cosine[real]
        if rule == "mutual":
            kept = cosine >= self._weakest[source, modality[target]]
            source, target, cosine = source[kept], target[kept], cosine[kept]
        else:
            more = self._chosen_by(vectors, own, found)
            source, target, cosine = (torch.cat(pair) for pair in zip((source, target, cosine), more, strict=True))
            order = target.argsort(stable=True)
            source, target, cosine = source[order], target[order], cosine[order]
        overlap = jaccard(found.node.flatten(1), self.neighbours.node.flatten(1), target, source)
        return Edges(source, target, cosine, overlap, 2 * modality[target] + self.modality[source])

    def _chosen_by(self, vectors: Vectors, own: Own, found: Neighbours) -> tuple[Tensor, Tensor, Tensor]:
        """Source, target and cosine where the target would be among the source's nearest, but not the reverse."""
        parts = []
        for start, cosines in self._tiles(vectors, own):
            modality = int(start >= len(vectors[0]))
            chosen = (cosines > -torch.inf) & (cosines >= self._weakest[:, modality])
            for other in (0, 1):
                if self._apart(modality, other):
                    chosen[:, self.nodes.part(other)] = False
            theirs = found.node[start : start + len(cosines)].flatten(1)
            row, slot = (theirs >= 0).nonzero(as_tuple=True)
            chosen[row, theirs[row, slot]] = False
            row, source = chosen.nonzero(as_tuple=True)
            parts.append((source, row + start, cosines[row, source]))
        source, target, cosine = (torch.cat(column) for column in zip(*parts, strict=True))
        return source, target, cosine

    def _tiles(self, vectors: Vectors, own: Own | None = None) -> Iterator[tuple[int, Tensor]]:
        """First row and cosines, float32 `[rows, N]`, of targets with these nodes; -inf with what they must not see."""
        height = max(1, _TILE // max(1, len(self.nodes)))
        start = 0
        for modality, of_modality in enumerate(vectors):
            seen = self.seen[modality].float().T
            for rows in of_modality.float().split(height) if len(of_modality) else ():
                with torch.autocast(rows.device.type, enabled=False):
                    cosines = rows @ seen
                if own is not None:
                    bounds = torch.tensor([start, start + len(rows)], device=own[0].device)
                    first, last = torch.searchsorted(own[0], bounds).tolist()
                    self._forbid(cosines, own[0][first:last] - start, own[1][first:last])
                yield start, cosines
                start += len(rows)

    def _forbid(self, cosines: Tensor, row: Tensor, image: Tensor) -> None:
        """Set the cosines `[B, N]` of rows with the nodes of images to -inf."""
        first = torch.searchsorted(self._items, image)
        counts = torch.searchsorted(self._items, image, right=True) - first
        # The nodes of an image follow one another in this order, at first, first + 1, ...
        skipped = (first - counts.cumsum(0) + counts).repeat_interleave(counts)
        places = torch.arange(len(skipped), device=row.device) + skipped
        cosines[row.repeat_interleave(counts), self._order[places]] = -torch.inf


def own_images(item: Tensor) -> Own:
    """What targets of these images, int64 `[T]`, must not see: their own."""
    return torch.arange(len(item), device=item.device), item


def jaccard(of_targets: Tensor, of_sources: Tensor, target: Tensor, source: Tensor) -> Tensor:
    """Overlap of two neighbour sets for every edge, float32 `[E]`: size of the intersection over that of the union.

    Args:
        of_targets: sets as rows `[T, S]` of distinct nodes; -1 is none.
        of_sources: as ``of_targets`` `[N, S]`, of the same nodes.
        target: row of ``of_targets`` `[E]`.
        source: row of ``of_sources`` `[E]`.
    """
    sizes = [(sets >= 0).sum(1) for sets in (of_targets, of_sources)]
    parts = []
    for t, s in zip(
        *(side.split(max(1, _OVERLAPS // of_targets.shape[1] ** 2)) for side in (target, source)), strict=True
    ):
        mine = of_targets[t]
        common = ((mine.unsqueeze(2) == of_sources[s].unsqueeze(1)) & (mine >= 0).unsqueeze(2)).sum((1, 2))
        parts.append(common / (sizes[0][t] + sizes[1][s] - common).clamp(min=1))
    return torch.cat(parts)
