"""Limits of a random order: hardly exceeded without a leak, however scores are made, and exceeded with a weak one."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from evaluation.feature_corpus import evaluated, feature_corpus
from numpy.typing import NDArray

from itmbench.evaluation.canaries import _independent, _shortfall, limits, reassigned
from itmbench.evaluation.protocol import CaptionProtocol, LabelProtocol

Contents = tuple[NDArray[Any], NDArray[Any]]
IMAGES, TEXTS = 40, 120


def scattered(generator: np.random.Generator) -> Contents:
    return generator.normal(size=(IMAGES, 8)), generator.normal(size=(TEXTS, 8))


def matching(generator: np.random.Generator) -> Contents:
    images = generator.normal(size=(IMAGES, 8))
    return images, np.repeat(images, 3, axis=0) + 0.1 * generator.normal(size=(TEXTS, 8))


def favourites(generator: np.random.Generator, images: int = IMAGES, texts: int = TEXTS) -> Contents:
    """All texts rank the images alike, and all images the texts."""
    image, text = generator.normal(size=images), generator.normal(size=texts)
    return np.c_[np.ones(images), image], np.c_[0.01 * text, np.ones(texts)]


def cliques(generator: np.random.Generator) -> Contents:
    """Eight groups of contents that find each other only."""
    images, texts = np.eye(8)[np.arange(IMAGES) % 8], np.eye(8)[np.arange(TEXTS) % 8]
    return images + 0.01 * generator.normal(size=images.shape), texts + 0.01 * generator.normal(size=texts.shape)


@pytest.mark.parametrize("contents", [scattered, matching, favourites, cliques])
def test_exchanged_contents_score_as_a_random_order(contents: Callable[[np.random.Generator], Contents]) -> None:
    images, texts = contents(np.random.default_rng(0))
    corpus = feature_corpus(images, texts, np.repeat(np.arange(IMAGES), 3))
    runs = [
        limits(evaluated(changed, CaptionProtocol()), changed, CaptionProtocol())
        for changed in (reassigned(corpus, seed) for seed in range(80))
    ]
    assert [limit.key for limit in runs[0]] == [
        *("i2t/R@1", "i2t/R@5", "i2t/R@10", "i2t/R@12"),
        *("t2i/R@1", "t2i/R@4", "t2i/R@5", "t2i/R@10"),
    ]
    for each in zip(*runs, strict=True):
        found, expected = np.array([limit.found for limit in each]), each[0].expected
        queries = IMAGES if each[0].key.startswith("i2t") else TEXTS
        deviation = np.sqrt(expected * (1 - expected) / queries)
        assert abs(found.mean() - expected) < 4 * deviation / np.sqrt(len(found)), each[0].key
        assert found.std() < 1.25 * deviation, each[0].key  # 80 runs know it to 8 %
        assert found.max() <= each[0].bound, each[0].key
        assert expected + 3 * deviation < each[0].bound < expected + 6.5 * deviation + 3 / queries


def test_favourites_of_an_image_with_many_texts_are_no_leak() -> None:
    owner = np.r_[np.arange(20), np.full(60, 3)]
    corpus = feature_corpus(*favourites(np.random.default_rng(0), 20, 80), owner)
    found = []
    for seed in range(100):
        changed = reassigned(corpus, seed)
        found += limits(evaluated(changed, CaptionProtocol()), changed, CaptionProtocol())
    assert all(limit.found <= limit.bound for limit in found)
    # One draw decides for 61 of the 80 texts: that is near one independent query, not 80.
    assert max(limit.found for limit in found if limit.key == "t2i/R@1") > 0.7
    assert _independent(np.bincount(owner)) == 1
    assert _independent(np.full(20, 4)) == 80


def test_a_weak_leak_exceeds_a_limit() -> None:
    generator = np.random.default_rng(0)
    images, texts = (generator.normal(size=(n, 16)) for n in (200, 1000))
    owner = np.repeat(np.arange(200), 5)
    leaky = texts + 0.4 * images[owner]
    for table, leaks in ((texts, False), (leaky, True)):
        corpus = feature_corpus(images, table, owner)
        found = limits(evaluated(corpus, CaptionProtocol()), corpus, CaptionProtocol())
        assert (max(limit.share() for limit in found) > 1) == leaks


def random_precision(relevant: int, items: int, generator: np.random.Generator) -> float:
    """AP of one random ranking, rank by rank."""
    hits = generator.permutation(np.arange(items) < relevant)
    found, total = 0, 0.0
    for rank, hit in enumerate(hits, 1):
        found += hit
        total += hit * found / rank
    return total / relevant


@pytest.mark.parametrize(("relevant", "items"), [(1, 30), (7, 30), (17, 30), (30, 30)])
def test_shortfall_is_the_mean_of_the_best_hundredth_of_random_rankings(relevant: int, items: int) -> None:
    generator = np.random.default_rng(1)
    simulated = np.sort([random_precision(relevant, items, generator) for _ in range(10_000)])
    assert _shortfall(np.array([0, relevant]), items) == pytest.approx([0, simulated[-100:].mean()], abs=0.04)


def label_corpus(generator: np.random.Generator, shared: bool) -> tuple[Contents, NDArray[np.uint8]]:
    """Contents and labels; ``shared``: all queries rank the gallery alike."""
    labels = (generator.random((60, 4)) < 0.3).astype(np.uint8)
    images, texts = generator.normal(size=(60, 6)), generator.normal(size=(60, 6))
    return favourites(generator, 60, 60) if shared else (images, texts), labels


@pytest.mark.parametrize("shared", [False, True])
def test_precision_of_exchanged_contents_hardly_exceeds_its_limit(shared: bool) -> None:
    protocol = LabelProtocol()
    (images, texts), labels = label_corpus(np.random.default_rng(0), shared)
    corpus = feature_corpus(images, texts, np.arange(60), labels, queries=20)
    found = []
    for seed in range(40):
        changed = reassigned(corpus, seed)
        evaluation = evaluated(changed, protocol)
        pair = limits(evaluation, changed, protocol)
        found += pair
        for limit in pair:
            assert limit.expected == pytest.approx(evaluation.metrics[f"chance/{limit.key}"])
    assert {limit.key for limit in found} == {"i2t/mAP", "t2i/mAP"}
    assert np.mean([limit.found for limit in found]) == pytest.approx(np.mean([x.expected for x in found]), abs=0.02)
    assert np.mean([limit.share() > 1 for limit in found]) <= 0.0255


def test_labels_in_the_embeddings_exceed_a_limit() -> None:
    (images, texts), labels = label_corpus(np.random.default_rng(0), False)
    images, texts = (np.c_[table, 2 * labels] for table in (images, texts))
    corpus = feature_corpus(images, texts, np.arange(60), labels, queries=20)
    assert all(limit.share() > 1 for limit in limits(evaluated(corpus, LabelProtocol()), corpus, LabelProtocol()))
