"""Evaluate ready-made embeddings, such as matrices of CLIP on disk, without a model, a dataset or a config."""

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from itmbench.data.corpus import Corpus, Rows, Stage, Strings
from itmbench.errors import InputError
from itmbench.evaluation.evaluation import Evaluation
from itmbench.evaluation.label import multi_hot
from itmbench.evaluation.protocol import CaptionProtocol, Protocol, protocol_for
from itmbench.evaluation.ranking import Ties
from itmbench.evaluation.scoring import Scorer, Vectors, as_embeddings, as_tensor
from itmbench.files import digest

RowList = Sequence[int] | NDArray[Any] | Tensor


def evaluate(
    image_emb: Vectors,
    text_emb: Vectors,
    text_to_image: RowList,
    labels: NDArray[Any] | Tensor | None = None,
    protocol: Protocol | None = None,
    *,
    queries: RowList | None = None,
    gallery: RowList | None = None,
    scorer: Scorer | None = None,
) -> Evaluation:
    """Evaluate retrieval between images and texts in both directions.

    Everything runs on the device of the image embeddings; memory does not grow with images x texts.

    Args:
        image_emb: tensor or array `[Ni, D]`, or embeddings with the tokens that the scorer needs.
        text_emb: `[Nt, D]`, likewise.
        text_to_image: row of the image that each text belongs to `[Nt]`; any order, any number of texts an image. An
            image without texts is a query that is never answered; a warning says how many there are.
        labels: multi-hot labels of the images `[Ni, C]`, which their texts share; None for caption retrieval.
        protocol: what to measure; by default `LabelProtocol()` with labels and `CaptionProtocol()` without.
        queries: with labels, rows of the images that, with their texts, are the queries; all by default.
        gallery: with labels, rows of the images that, with their texts, are searched; by default all other images, or
            all images if every image is a query. The query's own partner is relevant where it is in the gallery.
        scorer: (image tile, text tile) -> scores `[bi, bt]`; None is the cosine of the pooled vectors.

    Warns if embeddings hold zeros only, which have no direction.

    Returns:
        Metrics, with intervals and comparisons on request. Queries are named by their rows, so that two evaluations
        of the same items can be compared.

    Raises:
        InputError: shapes disagree, a row does not exist, a number is NaN or infinite, the protocol needs labels, or
            queries or a gallery are given for captions.

    Examples:
        >>> generator = np.random.default_rng(0)
        >>> images, owner = generator.normal(size=(200, 8)), np.repeat(np.arange(200), 5)
        >>> texts = images[owner] + generator.normal(size=(1000, 8))
        >>> evaluation = evaluate(images, texts, owner)
        >>> low, high = evaluation.interval("t2i/R@1")
        >>> print(f"{evaluation.metrics['t2i/R@1']:.2f}, {low:.2f} to {high:.2f}")
        0.26, 0.23 to 0.29
        >>> noisier = evaluate(images, texts + generator.normal(size=texts.shape), owner)
        >>> evaluation.compare(noisier).verdict
        'better'
    """
    images = as_embeddings(image_emb, lambda row: f"image {row}")
    texts = as_embeddings(text_emb, lambda row: f"text {row}").to(images.pooled.device)
    owner = _owners(text_to_image, len(images), len(texts)).cpu().numpy()
    everything, cpu = np.arange(len(images)), torch.device("cpu")
    asked = everything if queries is None else _rows(queries, "queries", len(images))
    rest = np.setdiff1d(everything, asked)
    others = rest if len(rest) else asked
    searched = others if gallery is None else _rows(gallery, "gallery", len(images))
    corpus = Corpus(
        name="evaluate",
        image_ids=[str(row) for row in range(len(images))],
        images=None,
        text_ids=[str(row) for row in range(len(texts))],
        texts=Strings([""] * len(texts)),
        text_to_image=owner,
        train=np.empty(0, np.int64),
        stages={"test": Stage(asked, searched)},
        labels=None if labels is None else multi_hot(labels, len(images), "labels", cpu).numpy().astype(np.uint8),
    )
    taking_part = corpus.stages["test"].images
    protocol = protocol or protocol_for(corpus)
    if isinstance(protocol, CaptionProtocol) and (queries is not None or gallery is not None):
        raise InputError("evaluate: captions are searched among all texts and images; queries and gallery need labels")
    if not isinstance(protocol, Protocol):
        raise InputError(
            f"evaluate: protocol is {protocol!r}; give one such as itmbench.evaluation.CaptionProtocol(folds=5)"
        )
    bare = np.setdiff1d(asked, owner)
    notes = []
    if labels is None and len(bare):
        have = "has no text, and counts" if len(bare) == 1 else "have no text, and count"
        notes.append(f"{len(bare)} of {len(asked)} images {have} as missed")
    for name, table in (("image", images), ("text", texts)) if scorer is None else ():
        zero = (table.pooled == 0).all(dim=1).nonzero()
        if len(zero):
            notes.append(
                f"{len(zero)} of {len(table)} {name} embeddings hold zeros only, the first is row {int(zero[0])}; "
                "their cosine with everything is 0"
            )
    for note in notes:
        warnings.warn(f"evaluate: {note}", stacklevel=2)
    evaluation = protocol.evaluate(
        corpus,
        "test",
        images[torch.from_numpy(taking_part)],
        texts[torch.from_numpy(corpus.texts_of(taking_part))],
        scorer,
    )
    return replace(evaluation, setting=digest(str(protocol.as_dict()), owner, asked, searched, corpus.labels))


def caption_retrieval(
    image_emb: Vectors,
    text_emb: Vectors,
    text_to_image: RowList,
    ks: Sequence[int] = (1, 5, 10),
    scorer: Scorer | None = None,
    ties: Ties = "pessimistic",
) -> dict[str, float]:
    """Compute hit rates and ranks in both directions, as VSE++, SCAN and their successors do.

    i2t: the query is an image, the gallery all texts, and the rank that of the image's best-ranked text. t2i: the
    query is a text, the gallery all images, and the rank that of its image. Ranks start at 1. Under pessimistic ties
    the correct item comes last among equal scores. An image without texts is a query that is never answered.

    Scores are float32 and computed in tiles; memory does not grow with images x texts. Everything runs on the device
    of the embeddings.

    Args:
        image_emb: tensor or array `[Ni, D]`, or embeddings with the tokens that the scorer needs.
        text_emb: `[Nt, D]`, likewise.
        text_to_image: image of each text `[Nt]`, in any order, with any number of texts per image.
        ks: the K of R@K; 1, 5 and 10 are added.
        scorer: (image tile, text tile) -> scores `[bi, bt]`; None is the cosine of the pooled vectors.
        ties: "pessimistic" or "optimistic".

    Returns:
        For both directions, "i2t/R@1" and so on: the share of queries with rank <= K; "i2t/MedR": the median rank,
        rounded down for an even number of queries as in the VSE++ code; "i2t/MeanR": the mean rank. "rSum" is 100
        times the sum of the six R@1, R@5 and R@10.

    Raises:
        InputError: lengths disagree, ``text_to_image`` names a missing image, or a number is NaN or infinite.

    Examples:
        >>> images, texts = torch.eye(2), torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.8, 0.6]])
        >>> metrics = caption_retrieval(images, texts, [0, 1, 1], ks=(1,))
        >>> metrics["i2t/R@1"], round(metrics["t2i/R@1"], 3), metrics["t2i/MeanR"]
        (1.0, 0.667, 1.3333333333333333)
    """
    protocol = CaptionProtocol(tuple(ks), ties)
    metrics = evaluate(image_emb, text_emb, text_to_image, protocol=protocol, scorer=scorer).metrics
    return {key: value for key, value in metrics.items() if not key.startswith("chance/")}


def _owners(text_to_image: RowList, images: int, texts: int) -> Tensor:
    """The map from texts to images, checked, as int64 `[Nt]`."""
    owner = as_tensor(text_to_image, "text_to_image")
    if owner.shape != (texts,):
        raise InputError(f"text_to_image has shape {list(owner.shape)} for {texts} texts; give one image row per text")
    outside = ((owner != owner.long()) | (owner < 0) | (owner >= images)).nonzero()
    if len(outside):
        row = int(outside[0])
        raise InputError(
            f"text_to_image: text {row} belongs to image {owner[row].item()}; there are images 0 to {images - 1}"
        )
    return owner.long()


def _rows(values: RowList, what: str, images: int) -> Rows:
    """Distinct image rows, ascending."""
    rows = as_tensor(values, what).cpu().numpy()
    if rows.ndim != 1 or not len(rows) or rows.dtype.kind != "i" or rows.min() < 0 or rows.max() >= images:
        raise InputError(f"{what}: give a list of image rows, whole numbers from 0 to {images - 1}")
    return np.unique(rows).astype(np.int64)
