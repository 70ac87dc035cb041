"""Explanations of the items of a corpus: the training items they attend to, and the deletion gap of a test stage."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

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
from itmbench.methods.mcr_dgn.bank import bank_rows
from itmbench.methods.mcr_dgn.explain import MODALITIES, Deletion, Seen, deletion, explain
from itmbench.methods.mcr_dgn.module import MCRDGN

FEW = 3
"""Query images that are explained by default, each with its first text."""


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


def select_items(corpus: Corpus, ids: str) -> dict[str, list[int]]:
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
    rows: dict[str, Rows] = {"image": stage.images, "text": corpus.texts_of(stage.images)}
    names = {"image": corpus.image_ids, "text": corpus.text_ids}
    known = {modality: {names[modality][row]: int(row) for row in rows[modality]} for modality in MODALITIES}
    selected: dict[str, list[int]] = {modality: [] for modality in MODALITIES}
    for name in ids.split(","):
        modalities = [modality for modality in MODALITIES if name in known[modality]]
        if not modalities:
            examples = "; ".join(f"{modality} ids: {', '.join([*known[modality]][:2])}, …" for modality in MODALITIES)
            raise InputError(f"--items {name}: no test image or text of {corpus.name} has this id ({examples})")
        for modality in modalities:
            selected[modality].append(known[modality][name])
    return selected


def explain_items(model: MCRDGN, corpus: Corpus, selected: dict[str, list[int]], top: int) -> list[ExplainedItem]:
    """Explain items.

    Args:
        model: in eval mode, set up for the corpus.
        corpus: the corpus that it was trained on.
        selected: corpus rows by modality.
        top: most training items to list for each.

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
    """Deletion curves of the protocol's objective on the test stage.

    Args:
        model: in eval mode, set up for the data, with a bank.
        data: the data to measure on.
        draws: draws of random edges.
    """
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
