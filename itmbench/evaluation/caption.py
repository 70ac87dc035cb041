"""Caption retrieval: an image is a hit if any of its captions is retrieved."""

from collections.abc import Sequence

import torch
from numpy.typing import NDArray
from torch import Tensor

from itmbench.errors import InputError
from itmbench.evaluation.grid import Grid
from itmbench.evaluation.ranking import Ties, check_options
from itmbench.evaluation.scoring import Scorer, Vectors, as_embeddings, as_tensor


def caption_retrieval(
    image_emb: Vectors,
    text_emb: Vectors,
    text_to_image: Sequence[int] | NDArray | Tensor,
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
        ks: the K of R@K.
        scorer: (image tile, text tile) -> scores `[bi, bt]`; None is the cosine of the pooled vectors.
        ties: "pessimistic" or "optimistic".

    Returns:
        For both directions, "i2t/R@1" and so on: the share of queries with rank <= K; "i2t/MedR": the median rank,
        rounded down for an even number of queries as in the VSE++ code; "i2t/MeanR": the mean rank. "rSum" is 100
        times the sum of all R@K.

    Raises:
        InputError: lengths disagree, ``text_to_image`` names a missing image, or a number is NaN or infinite.

    >>> images, texts = torch.eye(2), torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.8, 0.6]])
    >>> metrics = caption_retrieval(images, texts, [0, 1, 1], ks=(1,))
    >>> metrics["i2t/R@1"], round(metrics["t2i/R@1"], 3), metrics["t2i/MeanR"]
    (1.0, 0.667, 1.3333333333333333)
    """
    check_options(ties, cutoffs=tuple(ks))
    images = as_embeddings(image_emb, lambda row: f"image {row}")
    texts = as_embeddings(text_emb, lambda row: f"text {row}")
    owner = image_rows(text_to_image, len(images), len(texts)).to(images.pooled.device)
    order = owner.argsort(stable=True)
    if bool((owner.diff() < 0).any()):
        texts = texts[order]
    grid = Grid(images, texts, scorer, lambda row: f"image {row}")
    [(i2t, t2i)] = grid.ranks([torch.stack([owner[order], torch.arange(len(texts), device=owner.device)], dim=1)], ties)
    return caption_summary(i2t, t2i, ks)


def image_rows(text_to_image: Sequence[int] | NDArray | Tensor, images: int, texts: int) -> Tensor:
    """The map from texts to images as int64 `[Nt]`.

    Raises:
        InputError: its length is not the number of texts, or an entry is no image row.
    """
    owner = as_tensor(text_to_image, "text_to_image").detach()
    if owner.shape != (texts,):
        raise InputError(f"text_to_image has shape {list(owner.shape)} for {texts} texts; give one image row per text")
    outside = ((owner != owner.long()) | (owner < 0) | (owner >= images)).nonzero()
    if len(outside):
        row = int(outside[0])
        raise InputError(
            f"text_to_image: text {row} belongs to image {owner[row].item()}; there are images 0 to {images - 1}"
        )
    return owner.long()


def caption_summary(i2t: Tensor, t2i: Tensor, ks: Sequence[int]) -> dict[str, float]:
    """Compute the metrics of `caption_retrieval` from the ranks `[Ni]` and `[Nt]` of both directions."""
    metrics: dict[str, float] = {}
    for direction, ranks in (("i2t", i2t), ("t2i", t2i)):
        for k in ks:
            metrics[f"{direction}/R@{k}"] = float((ranks <= k).double().mean())
        metrics[f"{direction}/MedR"] = float(ranks.double().quantile(0.5).floor())
        metrics[f"{direction}/MeanR"] = float(ranks.double().mean())
    metrics["rSum"] = 100 * sum(metrics[f"{direction}/R@{k}"] for direction in ("i2t", "t2i") for k in ks)
    return metrics
