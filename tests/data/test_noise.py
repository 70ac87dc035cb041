import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from layouts import tiny_corpus

from itmbench.data.corpus import Corpus
from itmbench.data.noise import shuffled_labels, shuffled_pairs
from itmbench.errors import InputError


@given(st.lists(st.integers(0, 6), min_size=2, max_size=30), st.floats(0, 1))
def test_exactly_that_share_of_texts_gets_a_wrong_image(counts: list[int], share: float) -> None:
    corpus = tiny_corpus(counts, train=np.arange(0, len(counts), 2))
    texts = corpus.texts_of(corpus.train)
    if 2 * max(counts[::2]) > round(share * len(texts)):
        return  # it may be impossible
    moved, wrong = shuffled_pairs(corpus, share).T
    assert len(moved) == len(set(moved)) == round(share * len(texts))
    assert set(moved) <= set(texts)
    own = corpus.text_to_image[moved]
    assert not (own == wrong).any()
    assert sorted(own) == sorted(wrong)  # every image keeps its number of texts


def test_more_noise_includes_less_noise_and_spreads_over_images() -> None:
    corpus = tiny_corpus([5] * 100)
    some, same, more = (shuffled_pairs(corpus, share) for share in (0.2, 0.2, 0.4))
    assert (some == same).all() and len(some) == 100 and len(more) == 200
    assert set(some[:, 0]) < set(more[:, 0])
    assert len(set(some[:, 0] // 5)) > 50
    partners = [len(set(more[more[:, 0] // 5 == image, 1])) for image in range(100)]
    assert np.mean(partners) > 1.7  # texts of one image do not move together
    assert sorted(map(tuple, shuffled_pairs(tiny_corpus([2, 2]), 1.0).tolist())) == [(0, 1), (1, 1), (2, 0), (3, 0)]


def labelled(labels: list[list[int]], **changes: Any) -> Corpus:
    return tiny_corpus([1] * len(labels), labels=np.array(labels, np.uint8), **changes)


@given(st.lists(st.lists(st.integers(0, 1), min_size=3, max_size=3), min_size=2, max_size=40), st.floats(0, 1))
def test_exactly_that_share_of_images_gets_wrong_labels(labels: list[list[int]], share: float) -> None:
    corpus = labelled(labels, train=np.arange(0, len(labels), 2))
    assert corpus.labels is not None
    if 2 * max(labels[::2].count(row) for row in labels) > round(share * len(labels[::2])):
        return  # it may be impossible
    wrong = shuffled_labels(corpus, share)
    assert len(wrong) == len(set(wrong[:, 0])) == round(share * len(corpus.train))
    assert set(wrong.ravel()) <= set(corpus.train)
    noisy = dataclasses.replace(corpus, wrong_labels=wrong).labels_trained_with
    assert noisy is not None
    changed = (noisy != corpus.labels).any(1)
    assert set(np.flatnonzero(changed)) == set(wrong[:, 0])
    assert sorted(map(tuple, noisy.tolist())) == sorted(map(tuple, labels))  # the same rows in other places


def test_more_label_noise_includes_less_and_does_not_follow_caption_noise() -> None:
    corpus = labelled(np.random.default_rng(0).integers(0, 2, (400, 6)).tolist())
    some, same, more = (shuffled_labels(corpus, share) for share in (0.2, 0.2, 0.5))
    assert (some == same).all() and len(some) == 80 and len(more) == 200
    assert set(some[:, 0]) < set(more[:, 0])
    assert len(set(some[:, 0]) & set(shuffled_pairs(corpus, 0.2)[:, 0])) < 30  # 16 by chance


def test_impossible_noise_is_refused() -> None:
    with pytest.raises(InputError, match=r"^c: 1 of 10 training texts cannot be shuffled .* other than 0\.1$"):
        shuffled_pairs(tiny_corpus([5, 5]), 0.1)
    with pytest.raises(InputError, match=r"^c: no labels to corrupt; leave corrupted_labels at 0$"):
        shuffled_labels(tiny_corpus([1, 1]), 0.5)
    with pytest.raises(InputError, match=r"^c: 4 of 8 training images cannot .* corrupted_labels .* 0\.5$"):
        shuffled_labels(labelled([[1, 0]] * 8), 0.5)


def test_noise_changes_the_fingerprint_and_training_only() -> None:
    corpus = labelled([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0]])
    wrong = np.array([[0, 1], [1, 0]])
    pairs, labels = (dataclasses.replace(corpus, wrong_pairs=wrong), dataclasses.replace(corpus, wrong_labels=wrong))
    assert len({corpus.fingerprint, pairs.fingerprint, labels.fingerprint}) == 3
    assert pairs.text_to_image.tolist() == corpus.image_trained_with.tolist() == [0, 1, 2, 3]
    assert pairs.image_trained_with.tolist() == [1, 0, 2, 3]
    assert corpus.labels is not None and labels.labels is not None and labels.labels_trained_with is not None
    assert (labels.labels == corpus.labels).all() and corpus.labels_trained_with is corpus.labels
    assert labels.labels_trained_with.tolist() == [[0, 1, 0], [1, 0, 0], [0, 0, 1], [1, 1, 0]]
    assert tiny_corpus([1]).labels_trained_with is None
