"""Corpora that show a leak: parts of a corpus, exchanged contents, hidden truth; and the bounds of chance on them."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

from itmbench.data.corpus import Corpus, Features, ImageFiles, Rows, Stage, Strings
from itmbench.evaluation import chance
from itmbench.evaluation.evaluation import Evaluation
from itmbench.evaluation.protocol import CaptionProtocol, Protocol


def part(corpus: Corpus, items: int, stage: str = "test", seed: int = 0) -> Corpus:
    """Reduce a stage of a corpus to a random sample of at most ``items`` images.

    If queries and gallery differ, a quarter are queries.
    """
    whole = corpus.stages[stage]
    if len(whole.images) <= items:
        return corpus
    generator = np.random.default_rng(seed)

    def sample(rows: Rows, limit: int) -> Rows:
        return np.sort(generator.choice(rows, min(limit, len(rows)), replace=False))

    if np.array_equal(np.sort(whole.queries), np.sort(whole.gallery)):
        rows = sample(whole.queries, items)
        some = Stage(rows, rows)
    else:
        queries = sample(whole.queries, max(1, items // 4))
        some = Stage(queries, sample(whole.gallery, max(1, items - len(queries))))
    return replace(corpus, stages=corpus.stages | {stage: some})


def reassigned(corpus: Corpus, seed: int = 0) -> Corpus:
    """Permute the contents of the test images at random, and those of the test texts.

    The contents are real, so encoders treat them as in a real test. Ids, pairs and labels stay in place. Whatever a
    method makes of each content alone, every ranking is therefore a random order of the gallery.
    """
    generator = np.random.default_rng(seed)
    return _with_contents(corpus, corpus.stages["test"].images, generator.permutation)


def constant(corpus: Corpus) -> Corpus:
    """Give all test images the same content, and all test texts."""
    return _with_contents(corpus, corpus.stages["test"].images, lambda rows: np.full_like(rows, rows[0]))


@dataclass(frozen=True, eq=False)
class Blinded:
    """A corpus whose unseen test items are under wrong rows, ids, owners and labels, and where to find them."""

    corpus: Corpus  # the corpus for the method
    images: Rows  # position, among the test images of ``corpus``, of what truly is at each position `[Ni]`
    texts: Rows  # as ``images``, of the test texts


def blinded(corpus: Corpus) -> Blinded:
    """Permute the contents of all test images that are not trained on, and those of their texts; hide file names.

    Training items in a gallery stay: a method may know their rows and labels.
    """
    generator = np.random.default_rng(0)
    stage = corpus.stages["test"].images
    moved = np.setdiff1d(stage, corpus.train)
    orders: list[Rows] = []

    def permuted(rows: Rows) -> Rows:
        orders.append(generator.permutation(rows))
        return orders[-1]

    hidden = _with_contents(corpus, moved, permuted)
    if isinstance(hidden.images, ImageFiles):
        hidden = replace(hidden, images=HiddenFiles.of(hidden.images, moved))
    places = [
        _found_at(rows, some, order)
        for rows, some, order in zip(
            (stage, corpus.texts_of(stage)), (moved, corpus.texts_of(moved)), orders, strict=True
        )
    ]
    return Blinded(hidden, *places)


def _found_at(rows: Rows, moved: Rows, order: Rows) -> Rows:
    """Position among ``rows`` of the row that now holds the content of each; ``moved`` hold those of ``order``."""
    holder = np.arange(max(rows.max(), 0) + 1)
    holder[order] = moved
    place = np.empty_like(holder)
    place[rows] = np.arange(len(rows))
    return place[holder[rows]]


@dataclass(frozen=True)
class HiddenFiles(ImageFiles):
    """Image files, some of which have meaningless names and sizes; ``files`` are read in their place."""

    files: ImageFiles

    @classmethod
    def of(cls, files: ImageFiles, rows: Rows) -> "HiddenFiles":
        """Hide the names and sizes of some rows."""
        names, sizes = np.asarray(files.names, dtype=object), files.sizes.copy()
        names[rows], sizes[rows] = [f"hidden{row}" for row in rows.tolist()], 0
        return cls(files.root, names.tolist(), sizes, files)

    def __getitem__(self, row: int) -> Any:
        return self.files[row]

    def key(self, row: int) -> str:
        """Key of the true file, under which the output of a frozen encoder is stored."""
        return self.files.key(row)


def exchanged(corpus: Corpus, rows: Rows) -> Corpus:
    """Permute the contents and the labels of some images, and the contents of their texts."""
    generator = np.random.default_rng(0)
    changed = _with_contents(corpus, rows, generator.permutation)
    if corpus.labels is None:
        return changed
    labels = corpus.labels.copy()
    labels[rows] = labels[generator.permutation(rows)]
    return replace(changed, labels=labels)


def _with_contents(corpus: Corpus, images: Rows, rows_from: Callable[[Rows], Rows]) -> Corpus:
    """Give some images and their texts the contents of the rows that ``rows_from`` makes of theirs."""
    assert corpus.images is not None
    return replace(
        corpus,
        images=_replaced(corpus.images, images, rows_from),
        texts=_replaced(corpus.texts, corpus.texts_of(images), rows_from),
    )


def _replaced(items: ImageFiles | Features | Strings, rows: Rows, rows_from: Callable[[Rows], Rows]) -> Any:
    """Replace the items of the given rows by those of other rows."""
    source = np.arange(len(items))
    source[rows] = rows_from(rows)
    if isinstance(items, ImageFiles):
        return ImageFiles(items.root, [items.names[row] for row in source.tolist()], items.sizes[source])
    if isinstance(items, Features):
        return replace(items, rows=source if items.rows is None else items.rows[source])
    return Strings([items[row] for row in source.tolist()])


_ALARM = 1e-5
"""Probability that a recall exceeds its bound by chance."""
_TAIL, _DRAWS = 0.01, 2000


class Limit(NamedTuple):
    """The value of a metric, its mean under a random order, and a bound that a random order almost never exceeds."""

    key: str
    found: float
    expected: float
    bound: float

    def share(self) -> float:
        """Position of the value between the mean (0) and the bound (1)."""
        return (self.found - self.expected) / (self.bound - self.expected)


def limits(evaluation: Evaluation, corpus: Corpus, protocol: Protocol) -> list[Limit]:
    """Bound the metrics of a test stage whose contents were permuted by ``reassigned``.

    Captions: recalls in both directions, at the protocol's K and at a tenth of the gallery, where a weak but general
    leak shows best. Whatever the scores of the contents are, the number of t2i hits has the mean of a binomial
    distribution and at most M / (M - 1) times its variance for M texts, equally many per image (Hoeffding, "A
    combinatorial central limit theorem", 1951). The i2t hits, also drawn without replacement, come as close. The bound
    is a binomial quantile that chance exceeds once in 100,000 audits.

    Labels: mAP in both directions. Queries may depend on each other, even all rank the gallery alike. Expected
    shortfall is subadditive (Acerbi and Tasche, "On the coherence of expected shortfall", 2002), so the mean over the
    queries of the AP in the best hundredth of random rankings is exceeded in at most one audit in 100 whatever the
    dependence, and practically never by independent queries.
    """
    if isinstance(protocol, CaptionProtocol):
        return _recalls(evaluation, corpus, protocol)
    return _precisions(evaluation, corpus)


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
    """Effective number of independent t2i queries: a binomial of that size varies as the share of hits may.

    Texts of one image share its content, which all texts may happen to prefer. With equally many texts per image this
    averages out; otherwise the excess variance is that of the number of texts over its mean.
    """
    images, texts = len(texts_of_image), int(texts_of_image.sum())
    shared = (images * int((texts_of_image**2).sum()) - texts**2) / max(1, images - 1) - texts
    return max(1, int(texts / (1 + max(0.0, shared / texts))))


def _precisions(evaluation: Evaluation, corpus: Corpus) -> list[Limit]:
    assert corpus.labels is not None
    queries, searched = corpus.stages["test"].queries, corpus.stages["test"].gallery
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
    """Mean AP `[Q]` of the best hundredth of random rankings of N items, R `[Q]` relevant; 0 if none is.

    Simulated for some R, and interpolated between them.
    """
    ranks = 1 + np.random.default_rng(0).random((_DRAWS, items)).argsort(axis=1)
    simulated = np.unique(np.geomspace(1, items, 24).round().astype(int))
    tails = []
    for r in simulated:
        precisions = np.sort((np.arange(1, r + 1) / np.sort(ranks[:, :r], axis=1)).mean(axis=1))
        tails.append(precisions[-round(_TAIL * _DRAWS) :].mean())
    return np.where(relevant > 0, np.interp(relevant, simulated, tails), 0.0)
