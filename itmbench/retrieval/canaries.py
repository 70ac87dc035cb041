"""Corpora that a method cannot score on unless something leaks: same ids, same splits, other contents."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from itmbench.data.corpus import Corpus, Features, ImageFiles, Rows, Stage, Strings


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
