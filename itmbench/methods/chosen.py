"""What validation chooses beside the checkpoint, and what a method keeps of the training items."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from lightning.pytorch.trainer.states import TrainerFn

from itmbench.encoders import Embeddings
from itmbench.evaluation.evaluation import Evaluation
from itmbench.methods.evaluated import Evaluated, Tables
from itmbench.methods.trained import Modality


class Chosen(Evaluated):
    """Training items kept for the test, encoded anew before every validation, and options chosen by validation.

    While ``choosing``, encoding returns what all candidates need, and ``as_candidate`` makes the embeddings of one.
    """

    def __init__(self) -> None:
        super().__init__()
        self._filled_at = -1

    # --- choices ----------------------------------------------------------------------------------------------------

    def candidates(self) -> Sequence[Any]:
        """What validation chooses among."""
        return ()

    def as_candidate(self, items: Embeddings, modality: Modality, candidate: Any) -> Embeddings:
        """The test embeddings of one candidate, from what encoding returns while ``choosing``."""
        raise NotImplementedError

    def choose(self, candidate: Any) -> None:
        """Encode by this candidate from now on; buffers keep it in the checkpoint."""
        raise NotImplementedError

    @property
    def choosing(self) -> bool:
        """Whether this is a full validation during training with more than one candidate."""
        trainer = self._trainer
        if trainer is None or trainer.state.fn != TrainerFn.FITTING or not trainer.validating:
            return False
        return not trainer.fast_dev_run and len(self.candidates()) > 1  # type: ignore[attr-defined]

    def evaluate(self, tables: Tables, stage: str) -> Evaluation:
        """Evaluate a stage by the protocol; while choosing, every candidate, of which the best is kept."""
        measured = super().evaluate
        if not self.choosing:
            return measured(tables, stage)
        objective, candidates = self.evaluated_by.objective, self.candidates()
        evaluations = [
            measured(tables.map(partial(self.as_candidate, candidate=candidate)), stage) for candidate in candidates
        ]
        best = max(range(len(candidates)), key=lambda row: evaluations[row].metrics[objective])
        self.choose(candidates[best])
        return evaluations[best]

    # --- training items ---------------------------------------------------------------------------------------------

    def fill(self) -> None:
        """Encode, as at test, the training items that the method keeps. Called once per state of the weights."""

    def _fill_once(self) -> None:
        if self._filled_at == self.global_step:
            return
        training = self.training
        self.eval()
        self.fill()
        self.train(training)
        self._filled_at = self.global_step

    def on_fit_start(self) -> None:
        self._filled_at = -1  # step counts restart

    def on_validation_epoch_start(self) -> None:
        if self.trainer.state.fn == TrainerFn.FITTING and self.trainer.validating:  # not in the sanity check
            self._fill_once()

    def on_train_epoch_end(self) -> None:
        self._fill_once()
