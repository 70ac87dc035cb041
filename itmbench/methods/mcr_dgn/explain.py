"""What an item's embedding owes to which training items, and whether the attention tells the truth about it."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from itmbench.encoders import Embeddings
from itmbench.encoders.base import Inputs
from itmbench.errors import InputError
from itmbench.methods.mcr_dgn.context import Edges
from itmbench.methods.mcr_dgn.graph import Keep
from itmbench.methods.mcr_dgn.module import MCRDGN, read_out

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


@torch.no_grad()
def explain(model: MCRDGN, modality: str, inputs: Inputs) -> list[list[Seen]]:
    """What each item of a batch looks at in the bank, the most important first; nothing where it has no neighbour.

    Raises:
        InputError: the model has no graph, or nothing in its bank.
    """
    nodes, seen = _nodes(model, modality, inputs)
    done = model.propagate(MODALITIES.index(modality), nodes, seen)
    bank = model.bank.context(model.k, model.blocks) if done else None
    if bank is None:
        raise InputError("explain: the model has no graph or was never trained; give a checkpoint of one with layers")
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
def deletion_gap(
    model: MCRDGN,
    images: Sequence[Inputs],
    texts: Sequence[Inputs],
    quality: Callable[[Embeddings, Embeddings], float],
    shares: Sequence[float] = (0.25, 0.5, 0.75),
    seed: int = 0,
) -> float:
    """How much more it hurts to remove the edges with the most attention than to remove as many at random.

    The mean difference of two deletion curves (Petsiuk et al., "RISE", BMVC 2018, remove pixels in this way). Above 0,
    the attention names the edges that matter.

    Args:
        model: trained, in evaluation mode.
        images: batches of test images.
        texts: batches of test texts.
        quality: of image and text embeddings, higher is better.
        shares: of every node's edges that are removed, in every layer; rounded up.
        seed: of the random edges.
    """
    generator = torch.Generator().manual_seed(seed)
    gaps = []
    for share in shares:
        curves = [
            quality(_embeddings(model, "image", images, keep), _embeddings(model, "text", texts, keep))
            for keep in (without_strongest(share), without_random(share, generator))
        ]
        gaps.append(curves[1] - curves[0])
    return sum(gaps) / len(gaps)


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


def _embeddings(model: MCRDGN, modality: str, batches: Sequence[Inputs], keep: Keep) -> Embeddings:
    parts = []
    for inputs in batches:
        nodes, seen = _nodes(model, modality, inputs)
        done = model.propagate(MODALITIES.index(modality), nodes, seen, keep)
        parts.append(read_out(done[-1].states.view_as(nodes) if done else nodes))
    return Embeddings(torch.cat(parts))


def _nodes(model: MCRDGN, modality: str, inputs: Inputs) -> tuple[Tensor, Tensor]:
    if modality == "image":
        return model.image_nodes(model.image(inputs))
    return model.text_nodes(model.text(inputs))
