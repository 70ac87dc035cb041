"""The leak audit of a model: the checks of `itmbench.evaluation.leaks` on its test loaders and test hooks."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.fabric.utilities import move_data_to_device
from torch.utils.data import DataLoader

from itmbench.data.datamodule import CorpusDataModule
from itmbench.encoders import Embeddings
from itmbench.errors import InputError
from itmbench.evaluation import canaries
from itmbench.evaluation.canaries import limits
from itmbench.evaluation.evaluation import Evaluation
from itmbench.evaluation.leaks import (
    Encode,
    Finding,
    alone,
    at_chance,
    digests,
    frozen,
    pairs,
    ties_lose,
    without_rounding,
)
from itmbench.evaluation.protocol import CaptionProtocol, LabelProtocol, Protocol
from itmbench.methods.base import Matcher
from itmbench.methods.evaluated import KeepEvaluation

FEW = 8
"""Items of each modality that are encoded alone and in other batches."""


class StateWatch(L.Callback):
    """Digests of the model's state around its test passes: at the start of the first, at the end of the last."""

    def __init__(self) -> None:
        self.before: dict[str, str] | None = None
        self.after: dict[str, str] | None = None

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.before = self.before or digests(pl_module)

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.after = digests(pl_module)

    def finding(self, *evaluations: Evaluation) -> Finding:
        """Whether testing changed the state, or the answers between several passes."""
        assert self.before is not None and self.after is not None
        return frozen(self.before, self.after, evaluations)


def audit(trainer: L.Trainer, model: Matcher, data: CorpusDataModule, ckpt_path: str | None = None) -> list[Finding]:
    """Run all checks: four passes through the trainer's test loop, five if there are labels.

    Raises:
        InputError: the test passes do not evaluate the whole stage.
    """
    watch = StateWatch()
    corpus = replace(data.corpus, true_images=None, hard_negatives=None)  # these only add metrics
    data = data.with_corpus(corpus)
    trainer.callbacks.append(watch)  # type: ignore[attr-defined]
    passes = [_test(trainer, model, data, ckpt_path), _test(trainer, model, data)]
    trainer.callbacks.remove(watch)  # type: ignore[attr-defined]
    findings = [*audit_few(model, data), watch.finding(*passes)]

    chosen, protocol = model.protocol, replace(model.evaluated_by, ties="pessimistic")
    random, same = (data.with_corpus(change(corpus)) for change in (canaries.reassigned, canaries.constant))
    scores = []
    try:
        # Pair recalls are checked for label protocols too: a leak between partners need not show in label metrics.
        protocols: list[Protocol] = [protocol, CaptionProtocol()] if isinstance(protocol, LabelProtocol) else [protocol]
        for model.protocol in protocols:
            scores += limits(_test(trainer, model, random), random.corpus, model.protocol)
        model.protocol = without_rounding(protocol)
        findings += [at_chance(scores), ties_lose(_test(trainer, model, same), same.corpus, protocol)]
    finally:
        model.protocol = chosen
    return findings


def audit_few(model: Matcher, data: CorpusDataModule) -> list[Finding]:
    """The checks that need only a few items, after a test pass with this datamodule."""
    loaders = dict(zip(("image", "text"), data.test_dataloader(), strict=False))
    counts = {name: min(FEW, len(loader.dataset)) for name, loader in loaders.items()}  # type: ignore[arg-type]
    with _in_full_precision(model):
        encoders = {name: _encoder(model, loader, counts[name]) for name, loader in loaders.items()}
        embeddings = [encode(range(counts[name])) for name, encode in encoders.items()]
        return [alone(encoders, counts), pairs(model.score, *embeddings)]


def _encoder(model: Matcher, loader: DataLoader[Any], count: int) -> Encode:
    """A function that encodes a few evenly spaced items of a loader as a test pass does."""
    places = np.linspace(0, len(loader.dataset) - 1, count).astype(int)  # type: ignore[arg-type]

    def encode(which: Sequence[int]) -> Embeddings:
        batch = loader.collate_fn([loader.dataset[int(places[item])] for item in which])
        return model.predict_step(move_data_to_device(batch, model.device), 0)[1]

    return encode


@contextmanager
def _in_full_precision(model: Matcher) -> Iterator[None]:
    """The model in evaluation mode and float32, so that rounding is not mistaken for a leak."""
    training, dtype = model.training, model.dtype
    model.eval().float()
    try:
        with torch.no_grad():
            yield
    finally:
        model.to(dtype).train(training)


def _test(trainer: L.Trainer, model: Matcher, data: CorpusDataModule, ckpt_path: str | None = None) -> Evaluation:
    kept = KeepEvaluation()
    trainer.callbacks.append(kept)  # type: ignore[attr-defined]
    trainer.test(model, datamodule=data, ckpt_path=ckpt_path, verbose=False, weights_only=True)
    trainer.callbacks.remove(kept)  # type: ignore[attr-defined]
    if kept.evaluation is None:
        raise InputError("audit: nothing was evaluated; leave trainer.fast_dev_run unset")
    return kept.evaluation
