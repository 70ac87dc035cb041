"""A corpus without contents, and two scorers of any embeddings."""

import dataclasses
from typing import Any

import numpy as np
import torch
from torch import Tensor

from itmbench.data.corpus import Corpus, Stage, Strings
from itmbench.encoders.embeddings import Embeddings

TEST = np.arange(30, 60)


def make_corpus(**changes: Any) -> Corpus:
    """60 images, texts shuffled over them, 30 images to train on and 30 to test."""
    owner = np.random.default_rng(0).permutation(np.repeat(np.arange(60), 4))
    corpus = Corpus(
        name="toy",
        image_ids=[f"i{row}" for row in range(60)],
        images=None,
        text_ids=[f"t{row}" for row in range(240)],
        texts=Strings([f"text {row}" for row in range(240)]),
        text_to_image=owner,
        train=np.arange(30),
        stages={"test": Stage(TEST, TEST)},
    )
    return dataclasses.replace(corpus, **changes)


def cosine(images: Embeddings, texts: Embeddings) -> Tensor:
    return torch.nn.functional.normalize(images.pooled) @ torch.nn.functional.normalize(texts.pooled).T


def lopsided(images: Embeddings, texts: Embeddings) -> Tensor:
    """A scorer that gives nonsense when its arguments are exchanged."""
    return images.pooled[:, :1] * texts.pooled[:, 1:2].T
