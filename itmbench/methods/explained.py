"""Items to explain, of a corpus or of one's own: their names and words, and what the encoders read of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isqrt
from pathlib import Path
from typing import Any, get_args

import numpy as np
from lightning.fabric.utilities import move_data_to_device

from itmbench.data.batches import read
from itmbench.data.corpus import Corpus, ImageFiles, Rows, Strings
from itmbench.encoders.base import Inputs
from itmbench.encoders.stored import encode_once, is_encoded_once, processor_of
from itmbench.errors import InputError
from itmbench.methods.base import Matcher, Modality

MODALITIES: tuple[Modality, ...] = get_args(Modality)


@dataclass(frozen=True)
class Items:
    """Items of one modality.

    Args:
        modality: "image" or "text".
        ids: the id of each in the corpus; a path, or the text itself, where they are of one's own.
        texts: the words of each text, or of the first text of each image; None where there are none.
        files: the photograph of each image; None for texts and ready-made features.
        inputs: a batch of them, as evaluation reads it.
    """

    modality: Modality
    ids: Sequence[str]
    texts: Sequence[str | None]
    files: Sequence[Path | None]
    inputs: Inputs


def select_items(corpus: Corpus, ids: Sequence[str], count: int) -> dict[Modality, list[int]]:
    """Corpus rows by modality of the test items to explain; an id may name an image and a text.

    Args:
        corpus: the corpus.
        ids: of images or texts; empty for the first ``count`` query images and their first texts.
        count: see ``ids``.

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
        [file_of(corpus, row) if modality == "image" else None for row in rows],
        move_data_to_device(inputs, model.device),
    )


def own_items(model: Matcher, modality: Modality, given: Sequence[str]) -> Items:
    """Photographs by their paths, or texts.

    Raises:
        InputError: a file is missing or is no image, or the method reads ready-made features.
    """
    texts = [None if modality == "image" else text for text in given]
    files = [Path(path) if modality == "image" else None for path in given]
    return Items(modality, given, texts, files, model.inputs_of(modality, given))


def grid_side(model: Matcher, regions: int) -> int | None:
    """Rows and columns of the grid that regions form over a photograph; None where their places are not known."""
    side = isqrt(regions)
    return side if model.image.grid_tokens and side * side == regions > 0 else None


def words_of(corpus: Corpus, text: int) -> str | None:
    """The words of a text; None where texts are no words."""
    return corpus.texts[text] if isinstance(corpus.texts, Strings) else None


def file_of(corpus: Corpus, image: int) -> Path | None:
    """The photograph of an image; None where images are ready-made features."""
    images = corpus.images
    return images.root / images.names[image] if isinstance(images, ImageFiles) else None
