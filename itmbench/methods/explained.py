"""Items to explain, of a corpus or the user's own, and the hooks of the methods that explain them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import isqrt
from pathlib import Path
from typing import Any, NamedTuple, Protocol, get_args, runtime_checkable

import numpy as np
import torch
from lightning.fabric.utilities import move_data_to_device
from torch import Tensor

from itmbench.data.batches import read
from itmbench.data.corpus import Corpus, ImageFiles, Rows, Strings
from itmbench.encoders import Embeddings
from itmbench.encoders.base import Inputs
from itmbench.encoders.stored import encode_once, is_encoded_once, processor_of
from itmbench.errors import InputError
from itmbench.methods.base import Matcher, Modality
from itmbench.methods.explanations import ExplainedItem, ExplainedPair, ExplainedWord

MODALITIES: tuple[Modality, ...] = get_args(Modality)


@dataclass(frozen=True)
class Items:
    """Items of one modality."""

    modality: Modality  # "image" or "text"
    ids: Sequence[str]  # the id of each in the corpus; for the user's own items, a path or the text itself
    texts: Sequence[str | None]  # each text, or the first text of each image; None if there is none, or it is no string
    inputs: Inputs  # a batch of them, as evaluation reads it


class Attended(NamedTuple):
    """The parts of the score of one image with one text."""

    paths: dict[str, float]  # logit of each path, that of the words last; they sum to the score
    scale: float  # of the path of the words, whose logit is this times the sum of ``shares`` x ``found``
    shares: Tensor  # how much each word counts `[L]`
    found: Tensor  # how well it finds a region `[L]`
    whole: Tensor  # the share of the whole image in what it finds `[L]`
    regions: Tensor  # the share of each region `[L, R]`


@runtime_checkable
class ExplainsPairs(Protocol):
    """A method whose words look for regions: ``explain_pairs`` explains its scores."""

    def attended(self, image: Embeddings, text: Embeddings) -> Attended:
        """The parts of the score of an image with a text, both embedded, for the L real words and R real regions.

        Raises:
            InputError: there is nothing to show.
        """


@runtime_checkable
class ExplainsItems(Protocol):
    """A method whose items attach to training items."""

    @property
    def graph_at_test(self) -> bool:
        """Whether the ranking uses what they attach to."""

    def explain_items(self, corpus: Corpus, items: Items, top: int) -> Sequence[ExplainedItem]:
        """Explain items by ``top`` training items and parts; an InputError if there is nothing to show."""


def select_items(corpus: Corpus, ids: Sequence[str], count: int) -> dict[Modality, list[int]]:
    """Corpus rows, by modality, of the test images and texts with some ids; an id may name one of each.

    Without ids: the first ``count`` query images and their first texts.

    Raises:
        InputError: no test item has one of the ids.
    """
    stage = corpus.stages["test"]
    if not ids:
        images = stage.queries[:count].tolist()
        return {"image": images, "text": [int(corpus.texts_of_image[row][0]) for row in images]}
    rows: dict[Modality, Rows] = {"image": stage.images, "text": corpus.texts_of(stage.images)}
    names: dict[Modality, Sequence[str]] = {"image": corpus.image_ids, "text": corpus.text_ids}
    known = {modality: {names[modality][row]: int(row) for row in rows[modality]} for modality in MODALITIES}
    selected: dict[Modality, list[int]] = {modality: [] for modality in MODALITIES}
    for name in ids:
        modalities = [modality for modality in MODALITIES if name in known[modality]]
        if not modalities:
            examples = "; ".join(f"{modality} ids: {', '.join([*known[modality]][:2])}, …" for modality in MODALITIES)
            raise InputError(f"--items {name}: no test image or text of {corpus.name} has this id ({examples})")
        for modality in modalities:
            selected[modality].append(known[modality][name])
    return selected


def corpus_items(model: Matcher, corpus: Corpus, modality: Modality, rows: Sequence[int]) -> Items:
    """Items of a corpus; frozen encoders encode these alone, or read them from the cache."""
    encoder, source = (model.image, corpus.images) if modality == "image" else (model.text, corpus.texts)
    wanted = np.asarray(rows, dtype=np.int64)
    stored: Any = encode_once(encoder, source, wanted, model.device) if is_encoded_once(encoder, source) else source  # type: ignore[arg-type]
    inputs = processor_of(encoder, stored)(read(stored, wanted), False)
    ids = corpus.image_ids if modality == "image" else corpus.text_ids
    first = [int(corpus.texts_of_image[row][0]) if modality == "image" else row for row in rows]
    return Items(
        modality,
        [ids[row] for row in rows],
        [words_of(corpus, text) for text in first],
        move_data_to_device(inputs, model.device),
    )


def own_items(model: Matcher, modality: Modality, given: Sequence[str]) -> Items:
    """Photographs by their paths, or texts.

    Raises:
        InputError: a file is missing or not an image, or the method reads ready-made features.
    """
    texts = [None if modality == "image" else text for text in given]
    return Items(modality, given, texts, model.inputs_of(modality, given))


@torch.no_grad()
def explain_pairs(model: Matcher, images: Items, texts: Items) -> list[ExplainedPair]:
    """Explain the score of each image with the text in its row, by an `ExplainsPairs`; an InputError if impossible."""
    assert isinstance(model, ExplainsPairs)
    image, read = model.encode_image(images.inputs), model.text(texts.inputs)
    text = model.at_test(model.embed(read, "text"), "text")
    explained = []
    for row in range(len(texts.ids)):
        at = slice(row, row + 1)
        with torch.autocast(model.device.type, enabled=False):  # as scores of a test are computed
            parts = model.attended(image[at], text[at])
        assert text.mask is not None
        tokens = text.mask[row].nonzero().flatten().tolist()
        names = [*map(str, tokens)]
        if read.words is not None:
            names = [model.text.word(int(read.words[row, token])) or "[mark]" for token in tokens]
        columns = (parts.shares, parts.found, parts.whole, parts.regions)
        words = [ExplainedWord(*values) for values in zip(names, *(part.tolist() for part in columns), strict=True)]
        grid, score = grid_side(model, parts.regions.shape[1]), sum(parts.paths.values())
        ids = images.ids[row], grid, texts.ids[row], texts.texts[row]
        explained.append(ExplainedPair(*ids, score, parts.paths, parts.scale, words))
    return explained


def grid_side(model: Matcher, regions: int) -> int | None:
    """Rows and columns of the grid that regions form over a photograph; None if their places are not known."""
    side = isqrt(regions)
    return side if model.image.grid_tokens and side * side == regions > 0 else None


def words_of(corpus: Corpus, text: int) -> str | None:
    """A text of a corpus as a string; None if its texts are features."""
    return corpus.texts[text] if isinstance(corpus.texts, Strings) else None


def image_rows(corpus: Corpus, explained: Iterable[ExplainedPair | ExplainedItem]) -> dict[str, int]:
    """Rows of the images of a corpus that explanations name, by id; none if its images are ready-made features."""
    if not isinstance(corpus.images, ImageFiles):
        return {}
    named = set[str]()
    for item in explained:
        if isinstance(item, ExplainedPair):
            named.add(item.image)
        elif item.modality == "image":
            seen = [*item.sees, *(neighbour for label in item.labels for neighbour in label.sees)]
            named |= {item.id, *(neighbour.id for neighbour in seen)}
    return {id_: row for row, id_ in enumerate(corpus.image_ids) if id_ in named}


def photographs(corpus: Corpus, explained: Iterable[ExplainedPair | ExplainedItem]) -> dict[str, Path]:
    """Files of the images of a corpus that explanations name, by id."""
    images = corpus.images
    rows = image_rows(corpus, explained)
    return {id_: images.root / images.names[row] for id_, row in rows.items()} if isinstance(images, ImageFiles) else {}
