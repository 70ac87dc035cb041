"""Wrong captions and wrong labels in training, to measure robustness to noise."""

import numpy as np

from itmbench.data.corpus import Corpus, Rows
from itmbench.errors import InputError


def shuffled_pairs(corpus: Corpus, share: float) -> Rows:
    """Shuffle a share of the training texts among themselves; return (text, wrong image) rows `[M, 2]`.

    As in the noisy correspondence of Huang et al. ("Learning with Noisy Correspondence for Cross-modal Matching",
    NeurIPS 2021), except that no text keeps its image: exactly round(share * n) pairs are wrong. The choice depends on
    the corpus alone, and a larger share includes the texts of a smaller one. Every image keeps its number of texts.

    Raises:
        InputError: more than half of the chosen texts belong to one image.
    """
    texts = corpus.texts_of(corpus.train)
    chosen, givers = _shuffled(corpus.text_to_image[texts], share, seed=0)
    if givers is None:
        raise InputError(
            f"{corpus.name}: {len(chosen)} of {len(texts)} training texts cannot be shuffled so that each changes its "
            f"image; set shuffled_captions to a value other than {share}"
        )
    return np.stack([texts[chosen], corpus.text_to_image[texts[givers]]], axis=1)


def shuffled_labels(corpus: Corpus, share: float) -> Rows:
    """Shuffle the labels of a share of the training images; return (image, image whose labels it gets) rows `[M, 2]`.

    All labels of an image move together, so that frequencies and co-occurrences stay the same. Exactly round(share * n)
    images get labels that differ from their own in at least one place. The choice depends on the corpus alone, and a
    larger share includes the images of a smaller one.

    Raises:
        InputError: there are no labels, or more than half of the chosen images have the same labels.
    """
    if corpus.labels is None:
        raise InputError(f"{corpus.name}: no labels to corrupt; leave corrupted_labels at 0")
    same = np.unique(corpus.labels[corpus.train], axis=0, return_inverse=True)[1].reshape(-1)
    # Not the seed of the texts: with one text per image, both kinds of noise would then hit the same images.
    chosen, givers = _shuffled(same, share, seed=1)
    if givers is None:
        raise InputError(
            f"{corpus.name}: {len(chosen)} of {len(same)} training images cannot be shuffled so that each changes its "
            f"labels; set corrupted_labels to a value other than {share}"
        )
    return np.stack([corpus.train[chosen], corpus.train[givers]], axis=1)


def _shuffled(kinds: Rows, share: float, seed: int) -> tuple[Rows, Rows | None]:
    """Choose a share of the items, and for each a chosen item of another kind whose place it takes.

    The second result is None if that is impossible, because more than half of the chosen items are of one kind.
    """
    # NumPy guarantees the stream of raw draws across versions.
    bits = np.random.PCG64(seed)
    chosen = np.argsort(bits.random_raw(len(kinds)), kind="stable")[: round(share * len(kinds))]
    givers = chosen[np.argsort(bits.random_raw(len(chosen)), kind="stable")]
    own, wrong = kinds[chosen], kinds[givers]
    for index in np.flatnonzero(wrong == own):
        others = np.flatnonzero((own != wrong[index]) & (wrong != own[index]))
        if not len(others):
            return chosen, None
        swapped = [others[bits.random_raw() % len(others)], index]
        givers[swapped[::-1]], wrong[swapped[::-1]] = givers[swapped], wrong[swapped]
    return chosen, givers
