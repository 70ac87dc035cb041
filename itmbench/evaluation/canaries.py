"""Corpora that a method can score on only if something leaks, and what a random order hardly ever exceeds on them."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

from itmbench.data.corpus import Corpus, Features, ImageFiles, Rows, Stage, Strings
from itmbench.evaluation import chance
from itmbench.evaluation.protocol import CaptionProtocol, Evaluation, LabelProtocol, Protocol


def part(corpus: Corpus, items: int, seed: int = 0) -> Corpus:
    """The corpus with at most so many images in its test stage; a quarter are queries where these are others.

    Args:
        corpus: with a stage "test".
        items: most images to keep.
        seed: of the choice.
    """
    stage = corpus.stages["test"]
    if len(stage.images) > items:
        generator = np.random.default_rng(seed)

        def some(rows: Rows, most: int) -> Rows:
            return np.sort(generator.choice(rows, min(most, len(rows)), replace=False))

        if np.array_equal(np.sort(stage.queries), np.sort(stage.gallery)):
            rows = some(stage.queries, items)
            stage = Stage(rows, rows)
        else:
            queries = some(stage.queries, max(1, items // 4))
            stage = Stage(queries, some(stage.gallery, max(1, items - len(queries))))
    return replace(corpus, stages=corpus.stages | {"test": stage})


def reassigned(corpus: Corpus, seed: int = 0) -> Corpus:
    """The corpus whose test images have exchanged their contents at random, and its test texts theirs.

    The contents are real ones, so that encoders do with them what they do in a real test. But ids, pairs and labels
    stay in place and know nothing of them: whatever a method makes of each content alone, every ranking is a random
    order of the gallery. Contents that meet their true partner by luck do so as often as in any random order.

    Args:
        corpus: with a stage "test".
        seed: of the exchange.
    """
    generator = np.random.default_rng(seed)
    return _with_contents(corpus, generator.permutation, generator.permutation)


def constant(corpus: Corpus) -> Corpus:
    """The corpus whose test images all hold the same content, and whose test texts do."""
    return _with_contents(corpus, _first, _first)


def _first(rows: Rows) -> Rows:
    return np.full_like(rows, rows[0])


def _with_contents(corpus: Corpus, images_from: Callable[[Rows], Rows], texts_from: Callable[[Rows], Rows]) -> Corpus:
    images = corpus.stages["test"].images
    assert corpus.images is not None
    return replace(
        corpus,
        images=_taken(corpus.images, images, images_from),
        texts=_taken(corpus.texts, corpus.texts_of(images), texts_from),
    )


def _taken(items: ImageFiles | Features | Strings, rows: Rows, rows_from: Callable[[Rows], Rows]) -> Any:
    """The items, with those of some rows replaced by those of other rows."""
    source = np.arange(len(items))
    source[rows] = rows_from(rows)
    if isinstance(items, ImageFiles):
        return ImageFiles(items.root, [items.names[row] for row in source.tolist()], items.sizes[source])
    if isinstance(items, Features):
        return replace(items, rows=source if items.rows is None else items.rows[source])
    return Strings([items[row] for row in source.tolist()])


_ALARM = 1e-5
"""How often a recall exceeds its bound by luck."""
_TAIL, _DRAWS = 0.01, 2000


class Limit(NamedTuple):
    """A metric, what a random order has of it on average, and what it exceeds hardly ever."""

    key: str
    found: float
    expected: float
    bound: float

    def share(self) -> float:
        """How far the metric has come from the average (0) to the bound (1)."""
        return (self.found - self.expected) / (self.bound - self.expected)


def limits(evaluation: Evaluation, corpus: Corpus, protocol: Protocol) -> list[Limit]:
    """The limits of a test stage whose contents were exchanged at random among its images and among its texts.

    Pairs: recalls of both directions, at the protocol's K and at a tenth of the gallery, where a weak but general
    leak shows best. Whatever the scores of the contents are, the hits of t2i then have the mean of a binomial
    distribution, and at most M / (M - 1) times its variance for M texts, the same number an image (as in Hoeffding, "A
    combinatorial central limit theorem", 1951); those of i2t, which are drawn without replacement too, come as
    close. The bound is the binomial's quantile, which luck exceeds once in 100,000 audits.

    Labels: mAP of both directions. All queries may rank the gallery alike, so no more can be said of their sum than
    this: expected shortfall is subadditive (Acerbi and Tasche, "On the coherence of expected shortfall", 2002), so
    the mean over the queries of the AP in the best hundredth of random rankings is exceeded at most once in 100
    audits, however the queries depend on each other, and practically never where they do not.

    Args:
        evaluation: of the stage "test".
        corpus: that was evaluated.
        protocol: that did.
    """
    if isinstance(protocol, CaptionProtocol):
        return _recalls(evaluation, corpus, protocol)
    return _precisions(evaluation, corpus, protocol)


def _recalls(evaluation: Evaluation, corpus: Corpus, protocol: CaptionProtocol) -> list[Limit]:
    texts_of_image = np.asarray([len(corpus.texts_of_image[row]) for row in corpus.stages["test"].images])
    images, texts = len(texts_of_image), int(texts_of_image.sum())
    limits = []
    for direction, relevant, items, queries in (
        ("i2t", texts_of_image, texts, images),
        ("t2i", np.ones(texts), images, _independent(texts_of_image)),
    ):
        ranks = evaluation.per_query["rank"][evaluation.per_query["direction"] == direction]
        for k in sorted({*protocol.ks, max(1, items // 10)}):
            expected = chance.hit_rate(relevant, items, k)
            bound = float(binom.isf(_ALARM, queries, expected)) / queries
            limits.append(Limit(f"{direction}/R@{k}", float((ranks <= k).mean()), expected, bound))
    return limits


def _independent(texts_of_image: NDArray[Any]) -> int:
    """Independent draws among the texts `[N]` -> whole number: a binomial of so many varies as the share of hits may.

    Texts of one image share the luck of its content, which a general favourite of all texts may be. In the sum over
    all texts that evens out where images have texts alike; the excess is their number's variance over its mean.
    """
    images, texts = len(texts_of_image), int(texts_of_image.sum())
    shared = (images * int((texts_of_image**2).sum()) - texts**2) / max(1, images - 1) - texts
    return max(1, int(texts / (1 + max(0.0, shared / texts))))


def _precisions(evaluation: Evaluation, corpus: Corpus, protocol: LabelProtocol) -> list[Limit]:
    assert corpus.labels is not None
    queries, searched = corpus.stages["test"].queries, protocol.searched(corpus, "test")
    labels = (corpus.labels != 0).astype(np.float32)
    relevant = labels[queries] @ labels[searched].T > 0  # [queries, searched], by image
    texts = np.asarray([len(rows) for rows in corpus.texts_of_image])
    limits = []
    for direction, counts, items in (
        ("i2t", relevant @ texts[searched], int(texts[searched].sum())),
        ("t2i", np.repeat(relevant.sum(1), texts[queries]), len(searched)),
    ):
        found = evaluation.metrics[f"{direction}/mAP"]
        expected = chance.average_precision(counts, items)
        limits.append(Limit(f"{direction}/mAP", found, expected, float(_shortfall(counts, items).mean())))
    return limits


def _shortfall(relevant: NDArray[Any], items: int) -> NDArray[np.float64]:
    """Mean AP of the best hundredth of random rankings `[Q]`, by simulation, for R relevant of N items `[Q]`.

    Simulated for some R, interpolated between them; 0 where nothing is relevant.
    """
    ranks = 1 + np.random.default_rng(0).random((_DRAWS, items)).argsort(axis=1)
    simulated = np.unique(np.geomspace(1, items, 24).round().astype(int))
    tails = []
    for r in simulated:
        precisions = np.sort((np.arange(1, r + 1) / np.sort(ranks[:, :r], axis=1)).mean(axis=1))
        tails.append(precisions[-round(_TAIL * _DRAWS) :].mean())
    return np.where(relevant > 0, np.interp(relevant, simulated, tails), 0.0)
