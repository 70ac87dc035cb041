"""Wrong captions in training, by a stated rule: how much noise does a method bear?"""

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
    # Raw draws are the part of NumPy's generators whose stream is guaranteed.
    bits = np.random.PCG64(0)
    chosen = texts[np.argsort(bits.random_raw(len(texts)), kind="stable")[: round(share * len(texts))]]
    own = corpus.text_to_image[chosen]
    wrong = own[np.argsort(bits.random_raw(len(own)), kind="stable")]
    for at in np.flatnonzero(wrong == own):
        others = np.flatnonzero((own != wrong[at]) & (wrong != own[at]))
        if not len(others):
            raise InputError(
                f"{corpus.name}: {len(own)} of {len(texts)} training texts cannot be shuffled without one keeping its "
                f"image; give another shuffled_captions than {share}"
            )
        other = others[bits.random_raw() % len(others)]
        wrong[[at, other]] = wrong[[other, at]]
    return np.stack([chosen, wrong], axis=1)
