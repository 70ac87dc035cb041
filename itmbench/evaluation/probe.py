"""Probes: does an image score higher with its true caption than with a perturbed copy of it?"""

import numpy as np
import torch
from torch import Tensor

from itmbench.data.corpus import Corpus, Rows
from itmbench.data.perturb import RULES
from itmbench.encoders.embeddings import Embeddings
from itmbench.evaluation.grid import Grid
from itmbench.evaluation.scoring import Scorer, as_embeddings
from itmbench.evaluation.stage import EvaluatedStage

# Images scored in one table with all their texts. Few, because only the pairs on its diagonal are needed.
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
    """Compute, per rule, the share of images that score strictly higher with the true caption than with the probe.

    Guessing gives 0.5. A model with equal embeddings for both captions gets 0. Corpus, stage, embeddings and scorer are
    as for `CaptionProtocol.evaluate`.

    Args:
        rules: index into ``RULES`` of the rule that made each probe `[P]`.
        true: corpus row of the true caption of each probe `[P]`.
        probes: embeddings of the perturbed captions `[P]`.

    Returns:
        "probe/word_order", "probe/nouns" and "probe/attributes", as far as there are probes.

    Raises:
        InputError: a table has the wrong length, or an item has NaN or infinite numbers (names its id).
    """
    here = EvaluatedStage.of(corpus, stage, images, texts)
    rows = corpus.texts_of(here.stage.images)
    order = np.argsort(rows)
    position = order[np.searchsorted(rows, true, sorter=order)]
    perturbed = as_embeddings(probes, lambda row: f"perturbed text {corpus.text_ids[true[row]]}")
    higher = np.empty(len(true), dtype=bool)
    block = here.owner[position] // _IMAGES
    for number in np.unique(block):
        members = np.flatnonzero(block == number)
        true_scores, probe_scores = _scores(here, position[members], perturbed[torch.from_numpy(members)], scorer)
        higher[members] = (true_scores > probe_scores).cpu().numpy()
    return {
        f"probe/{name}": float(higher[rules == index].mean())
        for index, name in enumerate(RULES)
        if (rules == index).any()
    }


def _scores(
    here: EvaluatedStage, position: Rows, perturbed: Embeddings, scorer: Scorer | None
) -> tuple[Tensor, Tensor]:
    """Scores of true and of perturbed texts with the images of the true ones, `[P]` each.

    Both come from one grid, in which equal embeddings get equal scores to the last bit.
    """
    owners, row = np.unique(here.owner[position], return_inverse=True)
    true, column = np.unique(position, return_inverse=True)
    texts = Embeddings.cat([here.texts[torch.from_numpy(true)].on_one_device(), perturbed.on_one_device()])
    grid = Grid(
        here.images[torch.from_numpy(owners)], texts, scorer, lambda image: f"image {here.image_ids[owners[image]]}"
    )
    pairs = np.stack([np.tile(row, 2), np.append(column, len(true) + np.arange(len(position)))], axis=1)
    true_scores, probe_scores = grid.scores(torch.from_numpy(pairs).to(texts.pooled.device)).chunk(2)
    return true_scores, probe_scores
