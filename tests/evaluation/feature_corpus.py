"""A corpus whose contents are its embeddings, so that a canary needs no encoder."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from itmbench.data.corpus import Corpus, Features, Stage
from itmbench.encoders.embeddings import Embeddings
from itmbench.evaluation.evaluation import Evaluation
from itmbench.evaluation.protocol import CaptionProtocol, LabelProtocol


def feature_corpus(
    images: NDArray[Any], texts: NDArray[Any], owner: Any, labels: NDArray[np.uint8] | None = None, queries: int = 0
) -> Corpus:
    """All images are in the test stage; the first so many are queries and the others the gallery, or all are both."""
    rows = np.arange(len(images))
    return Corpus(
        name="features",
        image_ids=[f"i{row}" for row in rows],
        images=Features(images),
        text_ids=[f"t{row}" for row in range(len(texts))],
        texts=Features(texts),
        text_to_image=np.asarray(owner),
        train=rows[-2:],
        stages={"test": Stage(rows[:queries], rows[queries:]) if queries else Stage(rows, rows)},
        labels=labels,
    )


def vectors(source: Any, rows: NDArray[np.int64]) -> Embeddings:
    """The contents of some rows."""
    return Embeddings(torch.from_numpy(np.stack([source[int(row)][0] for row in rows])))


def evaluated(corpus: Corpus, protocol: CaptionProtocol | LabelProtocol) -> Evaluation:
    """The evaluation of the contents as they are."""
    images = corpus.stages["test"].images
    return protocol.evaluate(
        corpus, "test", vectors(corpus.images, images), vectors(corpus.texts, corpus.texts_of(images))
    )
