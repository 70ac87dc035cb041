"""A protocol that also records what a method passes to it, for the checks of `itmbench.evaluation.leaks`."""

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from itmbench.data.corpus import Corpus, Rows
from itmbench.encoders.embeddings import Embeddings
from itmbench.evaluation.answers import Examples
from itmbench.evaluation.canaries import Blinded
from itmbench.evaluation.evaluation import Evaluation
from itmbench.evaluation.examples import examples
from itmbench.evaluation.protocol import Protocol
from itmbench.evaluation.scoring import Scorer, comparable, score

TEXTS = 100
"""Most texts of a sample."""


@dataclass(frozen=True, eq=False)
class Sample:
    """Items of a test stage whose scores are kept: corpus rows of images `[n]` and of texts `[m]`, at least one each.

    ``of`` takes all images of a stage, and at most 100 of their texts, evenly spaced.
    """

    images: Rows
    texts: Rows

    @classmethod
    def of(cls, corpus: Corpus) -> "Sample":
        images = corpus.stages["test"].images
        texts = corpus.texts_of(images)
        return cls(images, texts[:: -(-len(texts) // TEXTS)])


@dataclass(eq=False)
class Recording:
    """What the protocol evaluates in one test pass: ``kept`` evaluations with the scores `[n, m]` of the sample."""

    sample: Sample
    given: Corpus  # that the method is tested on
    truth: Corpus  # to evaluate by; it differs from ``given`` if the method must not know it
    hidden: Blinded | None = None  # where the items of ``truth`` are in the method's tables, if not in their places
    examples: bool = False  # whether to make those of `itmbench.evaluation.examples`, except of a shortlist
    made: Examples | None = None  # the examples of the last evaluation
    kept: list[tuple[Evaluation, Tensor]] = field(default_factory=list)
    seconds: float = 0.0  # that recording took

    @property
    def scores(self) -> Tensor | None:
        """Scores `[n, m]` of the sample in the last evaluation, or None if there was none."""
        return self.kept[-1][1] if self.kept else None

    def changes(self, reported: Evaluation) -> list[str]:
        """Metrics and columns of the last evaluation that the reported one does not have."""
        return changed(self.kept[-1][0], reported) if self.kept else ["all"]

    def _keep(
        self, evaluation: Evaluation, protocol: Protocol, images: Embeddings, texts: Embeddings, scorer: Scorer | None
    ) -> None:
        began = time.perf_counter()
        rows, columns = self.sample.images, self.sample.texts
        stage = self.truth.stages["test"].images
        some = images[_places(stage, rows)], texts[_places(self.truth.texts_of(stage), columns)]
        left, right, of_pairs, _ = comparable(*some, scorer)
        scores = score(of_pairs, left, right, lambda row: f"image {self.truth.image_ids[rows[row]]}").cpu()
        self.kept.append((frozen_copy(evaluation), scores))
        if self.examples and (scorer is None or getattr(protocol, "shortlist", None) is None):
            compared = protocol.compared(images), protocol.compared(texts)
            self.made = examples(evaluation, self.truth, *compared, scorer)
        self.seconds += time.perf_counter() - began


def keeping(protocol: Protocol, recording: Recording) -> Protocol:
    """The same protocol, which also records what it evaluates; a method cannot make it evaluate by another corpus."""

    class Keeping(type(protocol)):  # type: ignore[misc]
        def evaluate(
            self, corpus: Corpus, stage: str, images: Embeddings, texts: Embeddings, scorer: Scorer | None = None
        ) -> Evaluation:
            if stage != "test" or corpus is not recording.given or asdict(self) != asdict(protocol):
                evaluation: Evaluation = super().evaluate(corpus, stage, images, texts, scorer)
                return evaluation
            if recording.hidden is not None:
                images = images[torch.from_numpy(recording.hidden.images)]
                texts = texts[torch.from_numpy(recording.hidden.texts)]
            evaluation = super().evaluate(recording.truth, stage, images, texts, scorer)
            recording._keep(evaluation, protocol, images, texts, scorer)
            return evaluation

    made: Protocol = Keeping(**asdict(protocol))
    return made


def frozen_copy(evaluation: Evaluation) -> Evaluation:
    """The evaluation as it is now."""
    return Evaluation(dict(evaluation.metrics), {key: np.array(col) for key, col in evaluation.per_query.items()})


def changed(kept: Evaluation, reported: Evaluation) -> list[str]:
    """Names of metrics and columns in which an evaluation differs from the reported one, which may add only probes."""
    metrics = [key for key, value in kept.metrics.items() if reported.metrics.get(key) != value]
    metrics += [key for key in reported.metrics if key not in kept.metrics and not key.startswith("probe/")]
    columns = [key for key, column in kept.per_query.items() if not _equal(reported.per_query, key, column)]
    return metrics + columns


def _equal(columns: Mapping[str, Any], key: str, column: Any) -> bool:
    return key in columns and np.array_equal(columns[key], column)


def _places(rows: Rows, some: Rows) -> Tensor:
    """Position of some rows among rows in any order."""
    order = np.argsort(rows)
    return torch.from_numpy(order[np.searchsorted(rows, some, sorter=order)])
