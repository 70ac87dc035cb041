"""Shares of images that prefer their true caption, against a loop over the probes."""

from typing import Any

import numpy as np
import pytest
import torch
from evaluation.toy_retrieval import TEST, cosine, lopsided, make_corpus
from torch import Tensor

from itmbench.data.perturb import RULES
from itmbench.encoders.embeddings import Embeddings
from itmbench.errors import InputError
from itmbench.evaluation import probe
from itmbench.evaluation.probe import probe_shares


def embed(dim: int = 6) -> tuple[Embeddings, Embeddings]:
    generator = torch.Generator().manual_seed(0)
    return tuple(Embeddings(torch.randn(count, dim, generator=generator)) for count in (30, 120))  # type: ignore[return-value]


@pytest.mark.parametrize("block", [1, 16, 60])
@pytest.mark.parametrize("scorer", [None, lopsided])
def test_shares_are_those_of_a_loop(monkeypatch: pytest.MonkeyPatch, block: int, scorer: Any) -> None:
    monkeypatch.setattr(probe, "_IMAGES", block)
    corpus = make_corpus()
    images, texts = embed()
    rows = corpus.texts_of(TEST)
    generator = np.random.default_rng(0)
    true = generator.choice(rows, 70)  # in any order, some of them twice
    rules = generator.integers(0, 2, 70)  # none of the third
    probes = Embeddings(torch.randn(70, 6, generator=torch.Generator().manual_seed(1)))
    found = probe_shares(corpus, "test", images, texts, rules, true, probes, scorer)

    score = scorer or cosine
    expected: dict[str, list[bool]] = {}
    for at in range(70):
        image = images[[int(np.flatnonzero(corpus.text_to_image[true[at]] == TEST)[0])]]  # type: ignore[index]
        own = texts[[int(np.flatnonzero(rows == true[at])[0])]]  # type: ignore[index]
        right, wrong = float(score(image, own)), float(score(image, probes[at : at + 1]))
        expected.setdefault(f"probe/{list(RULES)[rules[at]]}", []).append(right > wrong)
    assert found == pytest.approx({key: np.mean(outcomes) for key, outcomes in expected.items()})
    assert set(found) == {"probe/word_order", "probe/nouns"}


def test_equal_embeddings_lose_to_the_last_bit() -> None:
    """A bag of words gives a shuffled caption the embedding of the true one."""
    corpus = make_corpus()
    images, texts = embed(768)
    rows = corpus.texts_of(TEST)
    true = rows[::3]
    same = texts[torch.arange(0, len(rows), 3)]
    assert probe_shares(corpus, "test", images, texts, np.zeros(40, int), true, same) == {"probe/word_order": 0}


def test_what_is_not_finite_is_named() -> None:
    corpus = make_corpus()
    true = corpus.texts_of(TEST)[[4]]
    with pytest.raises(InputError, match=f"embedding of perturbed text {corpus.text_ids[true[0]]}: NaN"):
        probe_shares(corpus, "test", *embed(), np.zeros(1, int), true, Embeddings(torch.full((1, 6), torch.nan)))


def test_scores_that_are_not_finite_name_the_image() -> None:
    def broken(images: Embeddings, texts: Embeddings) -> Tensor:
        return cosine(images, texts).masked_fill((images.pooled == bad).all(dim=1)[:, None], torch.nan)

    corpus = make_corpus()
    images, texts = embed()
    bad = images.pooled[20]
    true = corpus.texts_of(TEST[20:21])
    with pytest.raises(InputError, match="scores of image i50: NaN"):
        probe_shares(corpus, "test", images, texts, np.zeros(4, int), true, texts[torch.arange(4)], broken)
