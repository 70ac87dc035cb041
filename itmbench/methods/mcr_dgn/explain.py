"""What an item's embedding owes to which training items, and whether the attention tells the truth about it."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import mean, pstdev

import torch
from torch import Tensor

from itmbench.encoders import Embeddings
from itmbench.encoders.base import Inputs
from itmbench.errors import InputError
from itmbench.methods.mcr_dgn.context import Context, Edges
from itmbench.methods.mcr_dgn.graph import Keep
from itmbench.methods.mcr_dgn.module import MCRDGN, joined

MODALITIES = ("image", "text")


@dataclass(frozen=True)
class Seen:
    """What an item looks at.

    Args:
        image: corpus row of the training image that it is, or that it is a text of.
        modality: "image" or "text".
        weight: attention to it, the mean over the nodes of the item and the layers of the graph; all that an item
            looks at adds up to the share of its nodes that have an edge.
    """

    image: int
    modality: str
    weight: float


@dataclass(frozen=True)
class Deletion:
    """Two deletion curves: how good the embeddings remain as edges are removed (Petsiuk et al., "RISE", BMVC 2018).

    Args:
        shares: of every node's edges that are removed, in every layer; rounded up `[S]`.
        strongest: quality where those with the most attention are removed `[S]`.
        random: quality where as many are removed at random, a row a draw `[draws, S]`.
        whole: quality with all edges.
        none: quality without any.
    """

    shares: Sequence[float]
    strongest: Sequence[float]
    random: Sequence[Sequence[float]]
    whole: float
    none: float

    @property
    def gap(self) -> float:
        """Mean difference of the curves. Above 0, the attention names the edges that matter."""
        return mean(self._gaps)

    @property
    def spread(self) -> float:
        """Standard deviation of the gap over the draws of random edges."""
        return pstdev(self._gaps)

    @property
    def _gaps(self) -> list[float]:
        return [mean(draw) - mean(self.strongest) for draw in self.random]


@torch.no_grad()
def explain(model: MCRDGN, modality: str, inputs: Inputs) -> list[list[Seen]]:
    """What each item of a batch looks at in the bank, the most important first; nothing where it has no neighbour.

    Raises:
        InputError: items do not look at a bank here, or there is nothing in it.
    """
    bank = attached_to(model)
    nodes, seen = _nodes(model, modality, inputs)
    done = model.propagate(MODALITIES.index(modality), nodes, seen)
    share = 1 / (nodes.shape[1] * len(done))
    found = [defaultdict[tuple[int, int], float](float) for _ in nodes]
    for step in done:
        items = (step.edges.target // nodes.shape[1]).tolist()
        images, kinds = bank.nodes.item[step.edges.source].tolist(), (step.edges.kind % 2).tolist()
        for item, image, kind, weight in zip(items, images, kinds, step.attention.tolist(), strict=True):
            found[item][image, kind] += share * weight
    return [
        [Seen(image, MODALITIES[kind], weight) for (image, kind), weight in sorted(of.items(), key=lambda e: -e[1])]
        for of in found
    ]


@torch.no_grad()
def deletion(
    model: MCRDGN,
    images: Iterable[Inputs],
    texts: Iterable[Inputs],
    quality: Callable[[Embeddings, Embeddings], float],
    shares: Sequence[float] = (0.25, 0.5, 0.75),
    draws: int = 3,
    seed: int = 0,
) -> Deletion:
    """Whether it hurts more to remove the edges with the most attention than to remove as many at random.

    Args:
        model: trained, in evaluation mode.
        images: batches of test images, on the model's device; encoded once.
        texts: batches of test texts.
        quality: of image and text embeddings, in the order of the batches; higher is better.
        shares: of every node's edges that are removed, in every layer; rounded up.
        draws: of random edges.
        seed: of these draws.

    Raises:
        InputError: items do not look at a bank here, or there is nothing in it; or there is no draw.
    """
    attached_to(model)
    if draws < 1:
        raise InputError(f"explain: {draws} draws of random edges leave nothing to compare with; give 1 or more")
    generator = torch.Generator().manual_seed(seed)
    nodes = [
        [_nodes(model, modality, inputs) for inputs in batches]
        for modality, batches in zip(MODALITIES, (images, texts), strict=True)
    ]

    def left(keep: Keep | None) -> float:
        return quality(*(_embeddings(model, modality, parts, keep) for modality, parts in enumerate(nodes)))

    return Deletion(
        shares=shares,
        strongest=[left(without_strongest(share)) for share in shares],
        random=[[left(without_random(share, generator)) for share in shares] for _ in range(draws)],
        whole=left(None),
        none=left(without_strongest(1.0)),
    )


def attached_to(model: MCRDGN) -> Context:
    """The bank that items look at.

    Raises:
        InputError: items do not look at a bank, or there is nothing in it.
    """
    if model.inference == "transductive":
        raise InputError("explain: with inference transductive items look at each other; set --model.inference anchor")
    bank = model.bank.context(model.k, model.blocks) if model.layers else None
    if bank is None:
        raise InputError("explain: the model has no graph or was never trained; give a checkpoint of one with layers")
    return bank


def without_strongest(share: float) -> Keep:
    """Leave out the share of every target's edges that has the most attention."""
    return lambda edges, attention: ~_first(edges, attention, share)


def without_random(share: float, generator: torch.Generator) -> Keep:
    """Leave out a random share of every target's edges."""

    def keep(edges: Edges, attention: Tensor) -> Tensor:
        return ~_first(edges, torch.rand(len(edges), generator=generator).to(attention.device), share)

    return keep


def _first(edges: Edges, value: Tensor, share: float) -> Tensor:
    """Which edges are among the share, rounded up, of their target's that have the highest values, bool `[E]`."""
    order = value.argsort(descending=True, stable=True)
    order = order[edges.target[order].argsort(stable=True)]
    target = edges.target[order]
    counts = target.bincount()
    place = torch.arange(len(order), device=order.device) - (counts.cumsum(0) - counts)[target]
    chosen = torch.empty_like(order, dtype=torch.bool)
    chosen[order] = place < (share * counts[target]).ceil()
    return chosen


def _embeddings(model: MCRDGN, modality: int, parts: Sequence[tuple[Tensor, Tensor]], keep: Keep | None) -> Embeddings:
    """Items of one modality with the graph, from their nodes and what these look for edges by, batch by batch."""
    done = [joined(*model.with_graph(modality, nodes, seen, keep), model.label_vote) for nodes, seen in parts]
    return Embeddings(torch.cat(done))


def _nodes(model: MCRDGN, modality: str, inputs: Inputs) -> tuple[Tensor, Tensor]:
    if modality == "image":
        return model.image_nodes(model.image(inputs))
    return model.text_nodes(model.text(inputs))
