"""What the evaluation of a stage hands on: embeddings and an `Evaluation`, to whichever callbacks ask for them."""

from collections.abc import Callable
from dataclasses import dataclass

import lightning as L
from torch import Tensor

from itmbench.data.corpus import Rows
from itmbench.encoders import Embeddings
from itmbench.evaluation.evaluation import Evaluation
from itmbench.methods.trained import Trained

Parts = list[tuple[Tensor, Embeddings]]
"""Corpus rows `[B]` and embeddings of batches in any order, on any device."""


@dataclass(frozen=True)
class Tables:
    """Embeddings of an evaluated stage.

    Args:
        images: of the stage's images, in corpus order.
        texts: of their texts, image by image.
        probes: rule `[P]`, corpus row of the true caption `[P]` and embeddings of the perturbed captions; None where
            there are none.
    """

    images: Embeddings
    texts: Embeddings
    probes: tuple[Rows, Rows, Embeddings] | None = None

    def map(self, change: Callable[[Embeddings], Embeddings]) -> "Tables":
        """The same tables with every table of embeddings changed."""
        probes = None if self.probes is None else (*self.probes[:2], change(self.probes[2]))
        return Tables(change(self.images), change(self.texts), probes)


class EvaluationCallback(L.Callback):
    """A callback that is also handed the embeddings of every evaluated stage, and the evaluation."""

    def on_encoded(self, model: Trained, stage: str, images: Embeddings, texts: Embeddings) -> None:
        """Called before evaluation with the embeddings of the stage, in corpus order; on every device."""

    def on_evaluated(self, model: Trained, stage: str, evaluation: Evaluation) -> None:
        """Called after evaluation; on every device."""


class KeepEvaluation(EvaluationCallback):
    """Keeps the last evaluation.

    Attributes:
        evaluation: None until a stage has been evaluated.
    """

    def __init__(self) -> None:
        self.evaluation: Evaluation | None = None

    def on_evaluated(self, model: Trained, stage: str, evaluation: Evaluation) -> None:
        self.evaluation = evaluation
