"""Perturbed captions against the true ones, each with the image that the true one belongs to."""

import numpy as np
import torch
from torch import Tensor

from itmbench.data.corpus import Corpus, Rows
from itmbench.data.perturb import RULES
from itmbench.encoders.embeddings import Embeddings
from itmbench.evaluation.grid import Grid
from itmbench.evaluation.scoring import Scorer, as_embeddings
from itmbench.evaluation.stage import EvaluatedStage

# Images that are scored together with all of their texts: few, because only one pair in so many is asked for.
_IMAGES = 16


def probe_shares(
    corpus: Corpus,
    stage: str,
    images: Embeddings,
    texts: Embeddings,
    rules: Rows,
    true: Rows,
    probes: Embeddings,
    scorer: Scorer | None = None,
) -> dict[str, float]:
    """For each rule: the share of images that score strictly higher with their true caption than with its perturbation.

    A model that does not see the difference gets 0 where the two have equal embeddings, and about a half, as any other
    guess, where rounding sets them apart.

    Args:
        corpus: whose captions were perturbed.
        stage: "val" or "test".
        images: of ``corpus.stages[stage].images``, in this order.
        texts: of ``corpus.texts_of(corpus.stages[stage].images)``, in this order.
        rules: the rule that made each probe, by its place in ``RULES`` `[P]`.
        true: corpus rows of the captions that they were made of `[P]`.
        probes: embeddings of the perturbed captions `[P]`.
        scorer: (image tile, text tile) -> scores `[bi, bt]`; None is the cosine of the pooled vectors.

    Returns:
        "probe/word_order", "probe/nouns" and "probe/attributes", those of them that have probes.

    Raises:
        InputError: a table has the wrong length, or an item NaN or infinite numbers (names its id).
    """
    here = EvaluatedStage.of(corpus, stage, images, texts)
    rows = corpus.texts_of(here.stage.images)
    order = np.argsort(rows)
    places = order[np.searchsorted(rows, true, sorter=order)]
    perturbed = as_embeddings(probes, lambda row: f"perturbed text {corpus.text_ids[true[row]]}")
    higher = np.empty(len(true), dtype=bool)
    block = here.owner[places] // _IMAGES
    for number in np.unique(block):
        some = np.flatnonzero(block == number)
        right, wrong = _scores(here, places[some], perturbed[torch.from_numpy(some)], scorer)
        higher[some] = (right > wrong).cpu().numpy()
    return {
        f"probe/{name}": float(higher[rules == number].mean())
        for number, name in enumerate(RULES)
        if (rules == number).any()
    }


def _scores(here: EvaluatedStage, places: Rows, perturbed: Embeddings, scorer: Scorer | None) -> tuple[Tensor, Tensor]:
    """Scores of true and of perturbed texts with the images that the true ones belong to, `[P]` each.

    Both stand in one table, in which equal embeddings get equal scores to the last bit.
    """
    owners, row = np.unique(here.owner[places], return_inverse=True)
    true, column = np.unique(places, return_inverse=True)
    texts = Embeddings.cat([here.texts[torch.from_numpy(true)], perturbed])
    grid = Grid(
        here.images[torch.from_numpy(owners)], texts, scorer, lambda image: f"image {here.image_ids[owners[image]]}"
    )
    pairs = np.stack([np.tile(row, 2), np.append(column, len(true) + np.arange(len(places)))], axis=1)
    right, wrong = grid.scores(torch.from_numpy(pairs).to(texts.pooled.device)).chunk(2)
    return right, wrong
