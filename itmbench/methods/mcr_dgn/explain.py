"""Which training items an embedding depends on, and whether the attention reflects their importance."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from statistics import mean, pstdev
from typing import Any, get_args

import numpy as np
import torch
from lightning.fabric.utilities import move_data_to_device
from torch import Tensor
from torch.utils.data import DataLoader

from itmbench.data.corpus import Corpus, Rows, Strings
from itmbench.data.datamodule import CorpusDataModule
from itmbench.encoders import Embeddings
from itmbench.encoders.base import Inputs
from itmbench.errors import InputError
from itmbench.methods.base import Modality
from itmbench.methods.mcr_dgn.bank import bank_rows
from itmbench.methods.mcr_dgn.context import Context, Edges
from itmbench.methods.mcr_dgn.graph import Keep
from itmbench.methods.mcr_dgn.module import MCRDGN

MODALITIES: tuple[Modality, ...] = get_args(Modality)
FEW = 3
"""Query images that are explained by default, each with its first text."""


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
def explain(model: MCRDGN, modality: Modality, inputs: Inputs) -> list[list[Seen]]:
    """List the bank items that each item of a batch attends to, by descending attention; empty without neighbours.

    Raises:
        InputError: the model does not attach items to a bank, or the bank is empty.
    """
    bank = attached_bank(model)
    nodes, keys, _ = _nodes(model, modality, inputs)
    layers = model.propagate(modality, nodes, keys)
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
    nodes = {
        modality: [_nodes(model, modality, inputs) for inputs in batches]
        for modality, batches in zip(MODALITIES, (images, texts), strict=True)
    }

    def quality_with(keep: Keep | None) -> float:
        vectors = (
            torch.cat([model.embed_nodes(modality, *part, keep) for part in parts]) for modality, parts in nodes.items()
        )
        return quality(*map(Embeddings, vectors))

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


def _nodes(model: MCRDGN, modality: Modality, inputs: Inputs) -> tuple[Tensor, Tensor, Tensor]:
    return model.nodes_of((model.image if modality == "image" else model.text)(inputs), modality)


@dataclass(frozen=True)
class ExplainedItem:
    """A test item and the training items it attends to.

    Args:
        modality: "image" or "text".
        id: its id in the corpus.
        text: the words of the text, or of the image's first text; None if texts are not words.
        sees: training items, highest weight first: ``modality``, ``id``, ``weight`` and ``text`` of each.
    """

    modality: str
    id: str
    text: str | None
    sees: list[dict[str, Any]]


def select_items(corpus: Corpus, ids: str) -> dict[Modality, list[int]]:
    """Corpus rows by modality of the test items to explain; an id may name an image and a text.

    Args:
        corpus: the corpus.
        ids: comma-separated; empty for the first ``FEW`` query images and their first texts.

    Raises:
        InputError: no test item has one of the ids.
    """
    stage = corpus.stages["test"]
    if not ids:
        images = stage.queries[:FEW].tolist()
        return {"image": images, "text": [int(corpus.texts_of_image[row][0]) for row in images]}
    rows: dict[Modality, Rows] = {"image": stage.images, "text": corpus.texts_of(stage.images)}
    names: dict[Modality, Sequence[str]] = {"image": corpus.image_ids, "text": corpus.text_ids}
    known = {modality: {names[modality][row]: int(row) for row in rows[modality]} for modality in MODALITIES}
    selected: dict[Modality, list[int]] = {modality: [] for modality in MODALITIES}
    for name in ids.split(","):
        modalities = [modality for modality in MODALITIES if name in known[modality]]
        if not modalities:
            examples = "; ".join(f"{modality} ids: {', '.join([*known[modality]][:2])}, …" for modality in MODALITIES)
            raise InputError(f"--items {name}: no test image or text of {corpus.name} has this id ({examples})")
        for modality in modalities:
            selected[modality].append(known[modality][name])
    return selected


def explain_items(model: MCRDGN, corpus: Corpus, selected: dict[Modality, list[int]], top: int) -> list[ExplainedItem]:
    """Explain items, given by corpus rows, of the corpus that a model was trained on: ``top`` training items for each.

    Raises:
        InputError: training on this corpus would not have given the rows that the bank holds.
    """
    held, texts = bank_rows(corpus, len(model.bank.item))
    if not np.array_equal(held, model.bank.item[: len(model.bank)].cpu()):
        raise InputError(f"explain: the checkpoint was not trained on this {corpus.name}; give its training data")
    text_of = dict(zip(held.tolist(), texts.tolist(), strict=True))

    def describe(seen: Seen) -> dict[str, Any]:
        row = text_of[seen.image]
        name = corpus.image_ids[seen.image] if seen.modality == "image" else corpus.text_ids[row]
        return {"modality": seen.modality, "id": name, "weight": seen.weight, "text": _words(corpus, row)}

    items = []
    for modality, rows in selected.items():
        if not rows:
            continue
        inputs = move_data_to_device(model.data.batch(modality, np.asarray(rows, dtype=np.int64)), model.device)
        for row, seen in zip(rows, explain(model, modality, inputs), strict=True):
            name = (corpus.image_ids if modality == "image" else corpus.text_ids)[row]
            text = int(corpus.texts_of_image[row][0]) if modality == "image" else row
            items.append(ExplainedItem(modality, name, _words(corpus, text), [describe(item) for item in seen[:top]]))
    return items


def measure_deletion(model: MCRDGN, data: CorpusDataModule, draws: int) -> Deletion:
    """Deletion curves of the protocol's objective on the test stage; arguments as in ``deletion``."""
    index: dict[str, list[Tensor]] = {modality: [] for modality in MODALITIES}
    images, texts = (
        _batches(loader, modality, index[modality], model.device)
        for modality, loader in zip(MODALITIES, data.eval_dataloaders("test"), strict=True)
    )

    def quality(image: Embeddings, text: Embeddings) -> float:
        rows = {modality: torch.cat(parts) for modality, parts in index.items()}
        encoded = {"image": [(rows["image"], image)], "text": [(rows["text"], text)], "probe": []}
        return float(model.evaluate(model.tables(encoded, "test"), "test").metrics[model.evaluated_by.objective])

    return deletion(model, images, texts, quality, draws=draws)


def _batches(loader: DataLoader[Any], modality: str, index: list[Tensor], device: torch.device) -> Iterator[Inputs]:
    """Inputs of a loader on the device; the corpus rows of each batch are appended to the index."""
    for batch in loader:
        moved = move_data_to_device(batch, device)
        index.append(moved["index"])
        yield moved[modality]


def _words(corpus: Corpus, text: int) -> str | None:
    return corpus.texts[text] if isinstance(corpus.texts, Strings) else None
