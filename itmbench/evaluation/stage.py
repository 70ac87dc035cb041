"""A stage under evaluation: its embeddings, ids and known truth, by position within the stage."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from itmbench.data.corpus import Corpus, Rows, Stage
from itmbench.encoders.embeddings import Embeddings
from itmbench.errors import InputError
from itmbench.evaluation.scoring import as_embeddings


@dataclass(frozen=True, eq=False)
class EvaluatedStage:
    """The images and texts of a stage, numbered from 0 as their embeddings are; ``owner`` is the image of each text."""

    corpus: Corpus
    stage: Stage
    images: Embeddings
    texts: Embeddings
    owner: Rows
    image_ids: NDArray[Any]
    text_ids: NDArray[Any]

    @classmethod
    def of(cls, corpus: Corpus, name: str, images: Embeddings, texts: Embeddings) -> "EvaluatedStage":
        """Combine a stage of the corpus with its embeddings.

        Raises:
            InputError: there is no such stage, a table has the wrong length, or an embedding is not finite.
        """
        if name not in corpus.stages:
            raise InputError(f"{corpus.name}: has no stage {name!r}; choose one of {', '.join(corpus.stages)}")
        stage = corpus.stages[name]
        image_ids = np.asarray([corpus.image_ids[row] for row in stage.images], dtype=object)
        text_ids = np.asarray([corpus.text_ids[row] for row in corpus.texts_of(stage.images)], dtype=object)
        for what, items, ids in (("image", images, image_ids), ("text", texts, text_ids)):
            if len(items) != len(ids):
                raise InputError(
                    f"{corpus.name}, {name}: {len(items)} {what} embeddings for {len(ids)} {what}s; "
                    f"encode every {what} of the stage once, in its order"
                )
        return cls(
            corpus,
            stage,
            as_embeddings(images, lambda row: f"image {image_ids[row]}"),
            as_embeddings(texts, lambda row: f"text {text_ids[row]}"),
            np.repeat(np.arange(len(image_ids)), [len(corpus.texts_of_image[row]) for row in stage.images]),
            image_ids,
            text_ids,
        )

    def positions(self, images: Rows) -> Rows:
        """Positions within the stage of corpus rows, all of which must belong to it."""
        return np.searchsorted(self.stage.images, images)

    @cached_property
    def group_ids(self) -> NDArray[Any]:
        """Group of each image `[Ni]`, by the id of its first image in the stage."""
        if self.corpus.groups is None:
            return self.image_ids
        _, first, place = np.unique(self.corpus.groups[self.stage.images], return_index=True, return_inverse=True)
        return self.image_ids[first[place]]

    def texts_of(self, images: Rows) -> Rows:
        """Positions of the texts of the given images, in order."""
        return np.flatnonzero(np.isin(self.owner, images))

    @cached_property
    def text_rows(self) -> Rows:
        """Corpus row of each text `[Nt]`."""
        return self.corpus.texts_of(self.stage.images)

    @property
    def own_pairs(self) -> Rows:
        """All pairs of an image and a text of its own `[Nt, 2]`."""
        return np.stack([self.owner, np.arange(len(self.owner))], axis=1)

    @cached_property
    def listed(self) -> NDArray[np.bool_]:
        """Whether the corpus lists the images that each text is true of `[Nt]`."""
        truth = self.corpus.true_images
        if truth is None:
            return np.zeros(len(self.owner), dtype=bool)
        return np.asarray([len(truth[row]) > 0 for row in self.text_rows], dtype=bool)

    @cached_property
    def true_pairs(self) -> Rows:
        """All true (image, text) pairs `[P, 2]`, sorted and unique; by default a text is true of its own image."""
        parts = [self.own_pairs]
        for text in np.flatnonzero(self.listed):
            images = np.asarray(self.corpus.true_images[self.text_rows[text]])  # type: ignore[index]
            here = self.positions(images[np.isin(images, self.stage.images)])
            parts.append(np.stack([here, np.full(len(here), text)], axis=1))
        return np.unique(np.concatenate(parts), axis=0)

    def asked_pairs(self) -> tuple[Rows, Rows]:
        """The true pairs of the images that own a text whose truth is listed, and those of these texts."""
        if not self.listed.any():
            return self.own_pairs[:0], self.own_pairs[:0]
        pairs, owners = self.true_pairs, np.unique(self.owner[self.listed])
        return pairs[np.isin(pairs[:, 0], owners)], pairs[self.listed[pairs[:, 1]]]

    def hard_triples(self) -> Rows:
        """All triples of an image, a near twin and a text of the image that is false of the twin `[M, 3]`."""
        twins = self.corpus.hard_negatives
        if twins is None:
            return np.empty((0, 3), dtype=np.int64)
        pairs = self.positions(twins[np.isin(twins, self.stage.images).all(axis=1)])
        true = set(map(tuple, self.true_pairs.tolist()))
        triples = [
            (image, twin, text)
            for image, twin in pairs.tolist()
            for text in np.flatnonzero(self.owner == image).tolist()
            if (twin, text) not in true
        ]
        return np.asarray(triples, dtype=np.int64).reshape(-1, 3)
