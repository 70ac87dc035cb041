"""A test pass that is watched: what the method does in it, for the leak audit."""

import time
from dataclasses import dataclass, replace
from pathlib import Path

import lightning as L
import numpy as np
import torch
from torch import Tensor, nn

from itmbench.data.corpus import Corpus, Strings
from itmbench.data.datamodule import CorpusDataModule
from itmbench.data.perturb import Probes
from itmbench.encoders import Embeddings
from itmbench.errors import InputError
from itmbench.evaluation import canaries, leaks
from itmbench.evaluation.answers import Examples
from itmbench.evaluation.evaluation import Evaluation
from itmbench.evaluation.protocol import Protocol, protocol_for
from itmbench.evaluation.recording import Recording, Sample, frozen_copy, keeping
from itmbench.methods.base import Matcher
from itmbench.methods.evaluated import EvaluationCallback
from itmbench.methods.trained import Trained

SAMPLE = 50
"""Most test images whose scores are compared between test passes."""

NO_PROBES = Probes(np.empty(0, np.int64), np.empty(0, np.int64), Strings([]))


@dataclass(eq=False)
class Pass:
    """One test pass of a method."""

    reported: Evaluation  # that the method reports
    changes: list[str]  # what differs in it from the one that the protocol made
    scores: Tensor | None  # of the sample of images and texts `[n, m]`; None if nothing went through the protocol
    training: list[nn.Module]  # modules in training mode
    before: dict[str, str]  # digests of the state when the pass began; empty unless asked for
    examples: Examples | None  # first results of some queries; None unless asked for, and of a shortlist
    seconds: float  # that recording all this took
    tokens: torch.dtype | None  # of the tokens that were kept for scoring; None if there were none


class _Watch(EvaluationCallback):
    """Records what a `Pass` holds."""

    reported: Evaluation | None = None
    tokens: torch.dtype | None = None

    def __init__(self, state: bool, checkpoint: Path | None) -> None:
        self.state, self.checkpoint, self.before, self.seconds = state, checkpoint, dict[str, str](), 0.0

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.checkpoint is not None:  # now, because afterwards it could hold what the test has seen
            trainer.save_checkpoint(self.checkpoint, weights_only=True)
        if self.state:
            began = time.perf_counter()
            self.before = leaks.digests(pl_module)
            self.seconds = time.perf_counter() - began

    def on_encoded(self, model: Trained, stage: str, images: Embeddings, texts: Embeddings) -> None:
        self.tokens = None if images.tokens is None else images.tokens.dtype

    def on_evaluated(self, model: Trained, stage: str, evaluation: Evaluation) -> None:
        self.reported, self.training = evaluation, [module for module in model.modules() if module.training]


def watched_test(
    trainer: L.Trainer,
    model: Matcher,
    data: CorpusDataModule,
    sample: Sample | None = None,
    ckpt_path: str | None = None,
    protocol: Protocol | None = None,
    hidden: canaries.Blinded | None = None,
    checkpoint: Path | None = None,
    examples: bool = False,
) -> Pass:
    """Test a model through the trainer and record what it does; called on every device.

    Without a ``sample``, the scores of up to ``SAMPLE`` images are kept, and the state is digested as well.
    ``protocol`` replaces the model's. ``hidden`` is the corpus that the model is given; it is evaluated by that of
    ``data``. The tested weights are saved to ``checkpoint`` before the first item is read.

    Raises:
        InputError: the pass does not evaluate the whole stage.
    """
    corpus = data.corpus
    given = data if hidden is None else bare_data(data, hidden.corpus)
    recording = Recording(sample or Sample.of(few_items(corpus)), given.corpus, corpus, hidden, examples)
    chosen, watch = model.protocol, _Watch(sample is None, checkpoint)
    model.protocol = keeping(protocol or chosen or protocol_for(corpus), recording)
    trainer.callbacks.append(watch)  # type: ignore[attr-defined]
    try:
        trainer.test(model, datamodule=given, ckpt_path=ckpt_path, verbose=False, weights_only=True)
    finally:
        model.protocol = chosen
        trainer.callbacks.remove(watch)  # type: ignore[attr-defined]
    if watch.reported is None:
        raise InputError("audit: nothing was evaluated; leave trainer.fast_dev_run unset")
    reported = frozen_copy(watch.reported)  # which the method cannot change any more
    return Pass(
        reported,
        recording.changes(reported),
        recording.scores,
        watch.training,
        watch.before,
        recording.made,
        recording.seconds + watch.seconds,
        watch.tokens,
    )


def few_items(corpus: Corpus) -> Corpus:
    """The corpus with a sample of the test stage, at most half of it."""
    return canaries.part(corpus, min(SAMPLE, -(-len(corpus.stages["test"].images) // 2)))


def bare_data(data: CorpusDataModule, corpus: Corpus) -> CorpusDataModule:
    """The data over another corpus, without what only adds metrics and without loader processes."""
    bare = data.with_corpus(replace(corpus, true_images=None, hard_negatives=None))
    bare.num_workers = 0
    bare.__dict__["probes"] = NO_PROBES
    return bare
