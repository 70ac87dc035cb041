"""Which training items an embedding depends on, and whether the attention reflects their importance."""

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
    """A training item that a test item attends to.

    Args:
        image: corpus row of the training image, or of the image of the training text.
        modality: "image" or "text".
        weight: attention, averaged over the nodes of the test item and the layers of the graph. The weights of a test
            item sum to the share of its nodes that have an edge.
    """

    image: int
    modality: str
    weight: float


@dataclass(frozen=True)
class Deletion:
    """Two deletion curves: the quality of the embeddings as edges are removed (Petsiuk et al., "RISE", BMVC 2018).

    Args:
        shares: share of every node's edges that is removed in every layer, rounded up `[S]`.
        strongest: quality without the edges of highest attention `[S]`.
        random: quality without as many random edges, one row per draw `[draws, S]`.
        whole: quality with all edges.
        none: quality without edges.
    """

    shares: Sequence[float]
    strongest: Sequence[float]
    random: Sequence[Sequence[float]]
    whole: float
    none: float

    @property
    def gap(self) -> float:
        """Mean difference of the curves. Above 0, the attention identifies the edges that matter."""
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
    """List the bank items that each item of a batch attends to, by descending attention; empty without neighbours.

    Raises:
        InputError: the model does not attach items to a bank, or the bank is empty.
    """
    bank = attached_bank(model)
    nodes, keys = _nodes(model, modality, inputs)
    layers = model.propagate(MODALITIES.index(modality), nodes, keys)
    share = 1 / (nodes.shape[1] * len(layers))
    weights = [defaultdict[tuple[int, int], float](float) for _ in nodes]
    for layer in layers:
        items = (layer.edges.target // nodes.shape[1]).tolist()
        images, kinds = bank.nodes.item[layer.edges.source].tolist(), (layer.edges.kind % 2).tolist()
        for item, image, kind, weight in zip(items, images, kinds, layer.attention.tolist(), strict=True):
            weights[item][image, kind] += share * weight
    return [
        [Seen(image, MODALITIES[kind], weight) for (image, kind), weight in sorted(item.items(), key=lambda e: -e[1])]
        for item in weights
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
    """Compare removing the edges of highest attention with removing as many random edges.

    Args:
        model: a trained model in eval mode.
        images: batches of test images on the model's device; encoded once.
        texts: batches of test texts.
        quality: metric of the image and text embeddings, in the order of the batches; higher is better.
        shares: shares of every node's edges to remove in every layer, rounded up.
        draws: number of draws of random edges.
        seed: seed of the draws.

    Raises:
        InputError: the model does not attach items to a bank, the bank is empty, or ``draws`` is below 1.
    """
    attached_bank(model)
    if draws < 1:
        raise InputError(f"explain: draws is {draws}; give 1 or more")
    generator = torch.Generator().manual_seed(seed)
    nodes = [
        [_nodes(model, modality, inputs) for inputs in batches]
        for modality, batches in zip(MODALITIES, (images, texts), strict=True)
    ]

    def quality_with(keep: Keep | None) -> float:
        return quality(*(_embeddings(model, modality, parts, keep) for modality, parts in enumerate(nodes)))

    return Deletion(
        shares=shares,
        strongest=[quality_with(without_strongest(share)) for share in shares],
        random=[[quality_with(without_random(share, generator)) for share in shares] for _ in range(draws)],
        whole=quality_with(None),
        none=quality_with(without_strongest(1.0)),
    )


def attached_bank(model: MCRDGN) -> Context:
    """The bank that the model attaches items to.

    Raises:
        InputError: the model does not attach items to a bank, or the bank is empty.
    """
    if model.inference == "transductive":
        raise InputError("explain: inference is transductive, so there is no bank; set --model.inference anchor")
    bank = model.bank.context(model.k, model.blocks) if model.layers else None
    if bank is None:
        raise InputError("explain: the model has no graph or is untrained; give a checkpoint of a model with layers")
    return bank


def without_strongest(share: float) -> Keep:
    """Remove the given share of every target's edges, those of highest attention first."""
    return lambda edges, attention: ~_first(edges, attention, share)


def without_random(share: float, generator: torch.Generator) -> Keep:
    """Remove a random share of every target's edges."""

    def keep(edges: Edges, attention: Tensor) -> Tensor:
        return ~_first(edges, torch.rand(len(edges), generator=generator).to(attention.device), share)

    return keep


def _first(edges: Edges, value: Tensor, share: float) -> Tensor:
    """Mark the edges within the given share, rounded up, of their target's highest values, bool `[E]`."""
    order = value.argsort(descending=True, stable=True)
    order = order[edges.target[order].argsort(stable=True)]
    target = edges.target[order]
    counts = target.bincount()
    rank = torch.arange(len(order), device=order.device) - (counts.cumsum(0) - counts)[target]
    marked = torch.empty_like(order, dtype=torch.bool)
    marked[order] = rank < (share * counts[target]).ceil()
    return marked


def _embeddings(model: MCRDGN, modality: int, parts: Sequence[tuple[Tensor, Tensor]], keep: Keep | None) -> Embeddings:
    """Embed items of one modality with the graph, from batches of their nodes and the vectors that find edges."""
    batches = [joined(*model.with_graph(modality, nodes, keys, keep), model.label_vote) for nodes, keys in parts]
    return Embeddings(torch.cat(batches))


def _nodes(model: MCRDGN, modality: str, inputs: Inputs) -> tuple[Tensor, Tensor]:
    if modality == "image":
        return model.image_nodes(model.image(inputs))
    return model.text_nodes(model.text(inputs))
