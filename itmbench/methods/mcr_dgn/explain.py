"""What an item attaches to and hears from the bank, and whether the attention reflects the importance of edges."""

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
from itmbench.methods.mcr_dgn.bank import Contexts, bank_rows
from itmbench.methods.mcr_dgn.context import Edges
from itmbench.methods.mcr_dgn.graph import Keep, attention
from itmbench.methods.mcr_dgn.module import MCRDGN
from itmbench.methods.relevance import mixed

MODALITIES: tuple[Modality, ...] = get_args(Modality)
FEW = 3
"""Query images that are explained by default, each with its first text."""


@dataclass(frozen=True)
class Neighbour:
    """A training pair that a node attaches to.

    Args:
        pair: its row in the bank.
        weight: the share of the edge in what the node hears.
    """

    pair: int
    weight: float


@dataclass(frozen=True)
class Label:
    """One label of an item, with its node.

    Args:
        label: its number.
        predicted: its probability by the encoder.
        heard: its probability by the graph.
        parts: attention of the label to the regions or words of the item, float32 `[N]`.
        neighbours: what its node attaches to, highest weight first.
    """

    label: int
    predicted: float
    heard: float
    parts: Tensor
    neighbours: list[Neighbour]


@dataclass(frozen=True)
class Explanation:
    """What a test item attaches to.

    Args:
        neighbours: of the node of the whole item, highest weight first.
        labels: the most probable labels, highest probability at test first.
        words: the tokens of the item in the vocabulary, int64 `[N]`; None if they are no words.
    """

    neighbours: list[Neighbour]
    labels: list[Label]
    words: Tensor | None


@dataclass(frozen=True)
class Deletion:
    """Two deletion curves: the quality of the embeddings as edges are removed (Petsiuk et al., "RISE", BMVC 2018).

    Args:
        shares: share of every node's edges that is removed, rounded up `[S]`.
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
def explain(model: MCRDGN, modality: Modality, inputs: Inputs, labels: int = 3) -> list[Explanation]:
    """Explain each item of a batch: its neighbours in the bank, and its ``labels`` most probable labels.

    Raises:
        InputError: the model has no graph, or the bank is empty.
    """
    contexts = attached_bank(model, modality)
    assert model.label_nodes is not None
    items = (model.image if modality == "image" else model.text)(inputs)
    embedded = model.embed(items, modality)
    assert embedded.tokens is not None
    parts = model.label_nodes[modality].attention(items)  # type: ignore[operator]
    vectors, logits = model.split(embedded)
    predicted, heard = logits.sigmoid(), model.heard(embedded, modality)
    hidden = contexts.item.copies(vectors)
    whole = contexts.item.attach(vectors, hidden)
    of_labels = [
        context.attach(nodes, hidden) for context, nodes in zip(contexts.labels, embedded.tokens.unbind(1), strict=True)
    ]
    final = mixed(predicted, heard, model.graph_weight if model.graph_at_test else 0.0)
    explanations = []
    for row in range(len(final)):
        probable = final[row].argsort(descending=True)[:labels].tolist()
        described = [
            Label(
                label,
                float(predicted[row, label]),
                float(heard[row, label]),
                parts[row, :, label],
                _neighbours(of_labels[label], row),
            )
            for label in probable
        ]
        words = None if items.words is None else items.words[row]
        explanations.append(Explanation(_neighbours(whole, row), described, words))
    return explanations


def _neighbours(edges: Edges, row: int) -> list[Neighbour]:
    """What one node attaches to, highest weight first."""
    shares = attention(edges)[row]
    order = [each for each in shares.argsort(descending=True).tolist() if shares[each] > 0]
    return [Neighbour(int(edges.source[row, each]), float(shares[each])) for each in order]


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
        shares: shares of every node's edges to remove, rounded up.
        draws: number of draws of random edges.
        seed: seed of the draws.

    Raises:
        InputError: the model has no graph, the bank is empty, or ``draws`` is below 1.
    """
    if draws < 1:
        raise InputError(f"explain: draws is {draws}; give 1 or more")
    generator = torch.Generator().manual_seed(seed)
    embedded: dict[Modality, list[Embeddings]] = {}
    for modality, encoder, batches in zip(MODALITIES, (model.image, model.text), (images, texts), strict=True):
        attached_bank(model, modality)
        embedded[modality] = [model.embed(encoder(inputs), modality) for inputs in batches]

    def quality_with(keep: Keep | None) -> float:
        vectors = (
            torch.cat([model.ranked(items, modality, keep).pooled for items in parts])
            for modality, parts in embedded.items()
        )
        return quality(*map(Embeddings, vectors))

    return Deletion(
        shares=shares,
        strongest=[quality_with(without_strongest(share)) for share in shares],
        random=[[quality_with(without_random(share, generator)) for share in shares] for _ in range(draws)],
        whole=quality_with(None),
        none=quality_with(without_strongest(1.0)),
    )


def attached_bank(model: MCRDGN, modality: Modality) -> Contexts:
    """What items of a modality attach to.

    Raises:
        InputError: the model has no graph, or the bank is empty.
    """
    if model.nodes == "none" or not len(model.bank):
        raise InputError("explain: the model has no graph or is untrained; give a checkpoint of a model with a graph")
    return model.bank.contexts(modality, model.k, model.edges)


def without_strongest(share: float) -> Keep:
    """Remove the given share of every node's edges, those of highest attention first."""
    return lambda attention: ~_first(attention, attention, share)


def without_random(share: float, generator: torch.Generator) -> Keep:
    """Remove a random share of every node's edges."""

    def keep(attention: Tensor) -> Tensor:
        return ~_first(torch.rand(attention.shape, generator=generator).to(attention.device), attention, share)

    return keep


def _first(values: Tensor, attention: Tensor, share: float) -> Tensor:
    """Mark the edges within the given share, rounded up, of a node's highest values, bool `[B, k]`."""
    exist = attention > 0
    rank = values.masked_fill(~exist, -torch.inf).argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    return rank < (share * exist.sum(1, keepdim=True)).ceil()


@dataclass(frozen=True)
class ExplainedItem:
    """A test item in words.

    Args:
        modality: "image" or "text".
        id: its id in the corpus.
        text: the words of the text, or of the image's first text; None if texts are not words.
        sees: training items of its modality that it attaches to, highest weight first: ``id``, ``weight``, ``text``.
        labels: its most probable labels: ``label``, the probabilities ``predicted`` by the encoder and ``heard`` from
            the graph, the ``parts`` it attends to (``part``: a word, or the number of a region; ``weight``),
            and the training items that its node attaches to, ``sees``.
    """

    modality: str
    id: str
    text: str | None
    sees: list[dict[str, Any]]
    labels: list[dict[str, Any]]


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
    """Explain items, given by corpus rows, of the corpus that a model was trained on: ``top`` of everything.

    Raises:
        InputError: training on this corpus would not have given the rows that the bank holds.
    """
    images, texts = bank_rows(corpus, model.bank_size)
    if not np.array_equal(images, model.bank.rows.cpu()):
        raise InputError(f"explain: the checkpoint was not trained on this {corpus.name}; give its training data")

    def seen(neighbours: list[Neighbour], modality: Modality) -> list[dict[str, Any]]:
        return [
            {
                "id": corpus.image_ids[images[each.pair]] if modality == "image" else corpus.text_ids[texts[each.pair]],
                "weight": each.weight,
                "text": _words(corpus, int(texts[each.pair])),
            }
            for each in neighbours[:top]
        ]

    explained = []
    for modality, rows in selected.items():
        if not rows:
            continue
        inputs = move_data_to_device(model.data.batch(modality, np.asarray(rows, dtype=np.int64)), model.device)
        for row, found in zip(rows, explain(model, modality, inputs), strict=True):
            name = (corpus.image_ids if modality == "image" else corpus.text_ids)[row]
            text = int(corpus.texts_of_image[row][0]) if modality == "image" else row
            labels = [
                {
                    "label": corpus.label_names[each.label] if corpus.label_names else each.label,
                    "predicted": each.predicted,
                    "heard": each.heard,
                    "parts": _parts(model, each.parts, found.words, top),
                    "sees": seen(each.neighbours, modality),
                }
                for each in found.labels
            ]
            explained.append(
                ExplainedItem(modality, name, _words(corpus, text), seen(found.neighbours, modality), labels)
            )
    return explained


def _parts(model: MCRDGN, weights: Tensor, words: Tensor | None, top: int) -> list[dict[str, Any]]:
    """The regions, by number, or the words with the highest attention of a label; marks are no words."""
    order = [part for part in weights.argsort(descending=True).tolist() if weights[part] > 0]
    names = {part: part if words is None else model.text.word(int(words[part])) for part in order}
    named = [part for part in order if names[part] is not None]
    return [{"part": names[part], "weight": float(weights[part])} for part in named[:top]]


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
