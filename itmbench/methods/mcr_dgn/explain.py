"""What an item attaches to and hears from the bank."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from itmbench.data.corpus import Corpus
from itmbench.encoders.base import Inputs
from itmbench.errors import InputError
from itmbench.methods.base import Modality
from itmbench.methods.explained import Items, file_of, grid_side, words_of
from itmbench.methods.mcr_dgn.bank import Contexts, bank_rows
from itmbench.methods.mcr_dgn.context import Edges
from itmbench.methods.mcr_dgn.graph import attention
from itmbench.methods.mcr_dgn.module import MCRDGN
from itmbench.methods.relevance import mixed


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


def attached_bank(model: MCRDGN, modality: Modality) -> Contexts:
    """What items of a modality attach to.

    Raises:
        InputError: the model has no graph, or the bank is empty.
    """
    if model.nodes == "none" or not len(model.bank):
        raise InputError("explain: the model has no graph or is untrained; give a checkpoint of a model with a graph")
    return model.bank.contexts(modality, model.k, model.edges)


@dataclass(frozen=True)
class ExplainedItem:
    """An item in words, with plain values.

    Args:
        modality: "image" or "text".
        id: its id in the corpus; a path, or the text itself, of items of one's own.
        text: the words of the text, or of the image's first text; None where there are none.
        file: the photograph of an image.
        grid: rows and columns of the grid of its regions; None where there is none.
        sees: training items of its modality that it attaches to, highest weight first: ``id``, ``weight``, ``text``,
            and the ``file`` of an image.
        labels: its most probable labels: ``label``, the probabilities ``predicted`` by the encoder and ``heard`` from
            the graph, the ``parts`` it attends to (``part``: a word, or the number of a region; ``weight``), the
            attention to all ``regions`` of an image, and the training items that its node attaches to, ``sees``.
    """

    modality: str
    id: str
    text: str | None
    file: str | None
    grid: int | None
    sees: list[dict[str, Any]]
    labels: list[dict[str, Any]]


def explain_items(model: MCRDGN, corpus: Corpus, items: Items, top: int) -> list[ExplainedItem]:
    """Explain items by the training items of the corpus that a model was trained on: ``top`` of everything.

    Raises:
        InputError: training on this corpus would not have given the rows that the bank holds.
    """
    images, texts = bank_rows(corpus, model.bank_size)
    if not np.array_equal(images, model.bank.rows.cpu()):
        raise InputError(f"explain: the checkpoint was not trained on this {corpus.name}; give its training data")

    def seen(neighbours: list[Neighbour]) -> list[dict[str, Any]]:
        found = []
        for each in neighbours[:top]:
            image, text = int(images[each.pair]), int(texts[each.pair])
            name = corpus.image_ids[image] if items.modality == "image" else corpus.text_ids[text]
            file = _path(file_of(corpus, image)) if items.modality == "image" else None
            found.append({"id": name, "weight": each.weight, "text": words_of(corpus, text), "file": file})
        return found

    explained = []
    for row, found in enumerate(explain(model, items.modality, items.inputs)):
        labels = [
            {
                "label": corpus.label_names[each.label] if corpus.label_names else each.label,
                "predicted": each.predicted,
                "heard": each.heard,
                "parts": _parts(model, each.parts, found.words, top),
                **({"regions": each.parts.tolist()} if items.modality == "image" else {}),
                "sees": seen(each.neighbours),
            }
            for each in found.labels
        ]
        file, text = _path(items.files[row]), items.texts[row]
        grid = None if items.modality == "text" else grid_side(model, len(found.labels[0].parts))
        sees = seen(found.neighbours)
        explained.append(ExplainedItem(items.modality, items.ids[row], text, file, grid, sees, labels))
    return explained


def _path(file: Path | None) -> str | None:
    return None if file is None else str(file)


def _parts(model: MCRDGN, weights: Tensor, words: Tensor | None, top: int) -> list[dict[str, Any]]:
    """The regions, by number, or the words with the highest attention of a label; marks are no words."""
    order = [part for part in weights.argsort(descending=True).tolist() if weights[part] > 0]
    names = {part: part if words is None else model.text.word(int(words[part])) for part in order}
    named = [part for part in order if names[part] is not None]
    return [{"part": names[part], "weight": float(weights[part])} for part in named[:top]]
