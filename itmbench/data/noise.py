"""Wrong captions and wrong labels in training, by a stated rule: how much noise does a method bear?"""

import numpy as np

from itmbench.data.corpus import Corpus, Rows
from itmbench.errors import InputError


def shuffled_pairs(corpus: Corpus, share: float) -> Rows:
    """Training texts with the wrong image each, `[M, 2]`: that share of the training texts, shuffled among themselves.

    As in the noisy correspondence of Huang et al. ("Learning with Noisy Correspondence for Cross-modal Matching",
    NeurIPS 2021), but no text keeps its image by luck: exactly round(share * n) pairs are wrong. Which they are depends
    on the corpus alone, and the texts of a smaller share are among those of a larger one. An image is in as many pairs
    as before.

    Args:
        corpus: whose training texts move.
        share: of them that do, from 0 to 1.

    Raises:
        InputError: one image owns over half of the texts that would move.
    """
    texts = corpus.texts_of(corpus.train)
    chosen, givers = _shuffled(corpus.text_to_image[texts], share, seed=0)
    if givers is None:
        raise InputError(
            f"{corpus.name}: {len(chosen)} of {len(texts)} training texts cannot be shuffled without one keeping its "
            f"image; give another shuffled_captions than {share}"
        )
    return np.stack([texts[chosen], corpus.text_to_image[texts[givers]]], axis=1)


def shuffled_labels(corpus: Corpus, share: float) -> Rows:
    """Training images with one whose labels they are given, `[M, 2]`: that share of them, shuffled among themselves.

    All labels of an image go together, so that labels stay as frequent as they were, alone and with each other. No
    image keeps its labels by luck: exactly round(share * n) are wrong, by at least one label. Which they are depends on
    the corpus alone, and the images of a smaller share are among those of a larger one.

    Args:
        corpus: whose training images change labels.
        share: of them that do, from 0 to 1.

    Raises:
        InputError: there are no labels, or over half of the images that would change have the same.
    """
    if corpus.labels is None:
        raise InputError(f"{corpus.name}: has no labels to corrupt; leave corrupted_labels at 0")
    same = np.unique(corpus.labels[corpus.train], axis=0, return_inverse=True)[1].reshape(-1)
    # Another seed than that of the texts: on one text an image, both kinds of noise would fall on the same images.
    chosen, givers = _shuffled(same, share, seed=1)
    if givers is None:
        raise InputError(
            f"{corpus.name}: the labels of {len(chosen)} of {len(same)} training images cannot be shuffled without one "
            f"keeping its own; give another corrupted_labels than {share}"
        )
    return np.stack([corpus.train[chosen], corpus.train[givers]], axis=1)


def _shuffled(kinds: Rows, share: float, seed: int) -> tuple[Rows, Rows | None]:
    """Places of a share of the items, and for each the place of the item that it is given, of another kind than itself.

    The second is None where that cannot be, because over half of them are of one kind.
    """
    # Raw draws are the part of NumPy's generators whose stream is guaranteed.
    bits = np.random.PCG64(seed)
    chosen = np.argsort(bits.random_raw(len(kinds)), kind="stable")[: round(share * len(kinds))]
    givers = chosen[np.argsort(bits.random_raw(len(chosen)), kind="stable")]
    own, wrong = kinds[chosen], kinds[givers]
    for at in np.flatnonzero(wrong == own):
        others = np.flatnonzero((own != wrong[at]) & (wrong != own[at]))
        if not len(others):
            return chosen, None
        swapped = [others[bits.random_raw() % len(others)], at]
        givers[swapped[::-1]], wrong[swapped[::-1]] = givers[swapped], wrong[swapped]
    return chosen, givers
