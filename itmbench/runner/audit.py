"""The leak audit of a model: the checks of `itmbench.evaluation.leaks` on its test loaders and test hooks."""

import copy
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.fabric.utilities import move_data_to_device
from torch import Tensor, nn
from torch.utils.data import DataLoader

from itmbench.data.datamodule import CorpusDataModule
from itmbench.encoders import Embeddings
from itmbench.encoders.stored import StoredItems
from itmbench.evaluation import canaries, leaks
from itmbench.evaluation.leaks import Encode, Finding
from itmbench.evaluation.protocol import CaptionProtocol, LabelProtocol, Protocol, protocol_for
from itmbench.evaluation.recording import Sample
from itmbench.methods.base import Matcher
from itmbench.runner.callbacks import SeedEpochs
from itmbench.runner.lease import Lost
from itmbench.runner.replay import Replay, by_fresh_instance
from itmbench.runner.watched import SAMPLE, Pass, bare_data, few_items, watched_test

FEW = 8
"""Items of each modality that are encoded alone and in other batches."""
REPLAYED = 16
"""Images, and as many texts, that a fresh instance encodes."""
FITTED, BATCH, STEPS = 48, 16, 2
"""Training images, batch size, and steps in each of the two epochs of the blind fit."""


def quick_audit(
    trainer: L.Trainer, model: Matcher, data: CorpusDataModule, test: Pass, checkpoint: Path, replay: Replay
) -> list[Finding]:
    """The checks of every cell, after a test pass with this datamodule; they take two more passes over a few items.

    Called on every device; only the first one replays.
    """
    dtype, few = _precision(trainer, test.tokens), bare_data(data, few_items(data.corpus))
    sample, hidden = Sample.of(few.corpus), canaries.blinded(few.corpus)
    findings = [*audit_few(model, data, test.training), leaks.as_reported(test.changes)]
    with _unlogged(trainer):
        subset, error = _tried(lambda: watched_test(trainer, model, few, sample).scores)
        what = f"when only these items exist{error}"
        findings.append(leaks.same_scores("subset", test.scores, subset, dtype, what))
        blind, error = _tried(lambda: watched_test(trainer, model, few, sample, hidden=hidden).scores)
        what = f"when rows, ids, owners and labels are wrong{error}"
        findings.append(leaks.same_scores("blind", subset, blind, dtype, what))
    findings.insert(2, leaks.frozen(test.before, leaks.digests(model)))
    if trainer.is_global_zero:
        findings.append(_replay(data, sample, test.scores, checkpoint, replay, dtype))
    return findings


def audit(
    trainer: L.Trainer,
    model: Matcher,
    data: CorpusDataModule,
    ckpt_path: str | None = None,
    replay: Replay | None = None,
) -> list[Finding]:
    """Run all checks: six passes through the trainer's test loop, seven if there are labels, and two short fits.

    Nothing is logged. Without ``ckpt_path`` the model is audited as it is. Without ``replay``, a copy of the model as
    it is now scores the replayed items, in this process.

    Raises:
        InputError: the test passes do not evaluate the whole stage.
    """
    pristine = copy.deepcopy(model)
    replay = replay or by_fresh_instance(lambda: copy.deepcopy(pristine))
    data = bare_data(data, data.corpus)
    corpus = data.corpus
    with _unlogged(trainer), tempfile.TemporaryDirectory() as folder:
        checkpoint, sample = Path(folder, "audited.ckpt"), Sample.of(few_items(corpus))
        test = watched_test(trainer, model, data, ckpt_path=ckpt_path, checkpoint=checkpoint)
        again = watched_test(trainer, model, data, sample)
        findings = quick_audit(trainer, model, data, test, checkpoint, replay)
        repeated = leaks.frozen(test.before, leaks.digests(model), [test.reported, again.reported])
        findings = [repeated if finding.name == repeated.name else finding for finding in findings]

        protocol = replace(model.protocol or protocol_for(corpus), ties="pessimistic")
        random, same = (bare_data(data, change(corpus)) for change in (canaries.reassigned, canaries.constant))
        # Pair recalls are checked for label protocols too: a leak between partners need not show in label metrics.
        protocols: list[Protocol] = [protocol, CaptionProtocol()] if isinstance(protocol, LabelProtocol) else [protocol]
        limits = [
            limit
            for each in protocols
            for limit in canaries.limits(
                watched_test(trainer, model, random, sample, protocol=each).reported, random.corpus, each
            )
        ]
        tied = watched_test(trainer, model, same, sample, protocol=leaks.without_rounding(protocol)).reported
        findings += [leaks.at_chance(limits), leaks.ties_lose(tied, same.corpus, protocol)]
    if trainer.is_global_zero:
        findings.append(_blind_fit(pristine, data, trained=trainer.max_epochs != 0))
    return findings


def audit_few(model: Matcher, data: CorpusDataModule, training: Sequence[nn.Module] = ()) -> list[Finding]:
    """The checks that need only a few items, after a test pass with this datamodule.

    ``training`` are the modules that were in training mode during the pass, although none should be.
    """
    loaders = dict(zip(("image", "text"), data.test_dataloader(), strict=False))
    counts = {name: min(FEW, len(loader.dataset)) for name, loader in loaders.items()}  # type: ignore[arg-type]
    with _in_full_precision(model, training):
        encoders = {name: _encoder(model, loader, counts[name]) for name, loader in loaders.items()}
        embeddings = [encode(range(counts[name])) for name, encode in encoders.items()]
        return [leaks.alone(encoders, counts), leaks.pairs(model.score, *embeddings)]


def _replay(
    data: CorpusDataModule, sample: Sample, scores: Tensor | None, checkpoint: Path, replay: Replay, dtype: torch.dtype
) -> Finding:
    """Whether a fresh instance ranks some images and one text of each as the test did."""
    corpus, source = data.corpus, data.sources.corpus
    assert corpus.images is not None
    if any(isinstance(items, StoredItems) for items in (source.images, source.texts)) and dtype == torch.float32:
        dtype = torch.float16  # of what frozen encoders gave
    owners = corpus.text_to_image[sample.texts]
    owned = np.flatnonzero(np.isin(sample.images, owners))
    rows = owned[np.unique(np.linspace(0, len(owned) - 1, REPLAYED).astype(int))]
    columns = np.asarray([np.flatnonzero(owners == image)[0] for image in sample.images[rows]])
    images = [corpus.images[row] for row in sample.images[rows]]
    texts = [corpus.texts[row] for row in sample.texts[columns]]
    expected = None if scores is None else scores[rows][:, columns]
    found, error = _tried(lambda: replay(checkpoint, images, texts))
    return leaks.same_ranks(expected, found, dtype, error)


def _tried(scores: Callable[[], Tensor | None]) -> tuple[Tensor | None, str]:
    """Scores, or None and the method's error, so that a failing check does not lose the result of a long training."""
    try:
        return scores(), ""
    except Lost:
        raise
    except Exception as error:
        return None, f" ({type(error).__name__}: {' '.join(str(error).split())[:80]})"


def _blind_fit(model: Matcher, data: CorpusDataModule, trained: bool) -> Finding:
    """Train twice for a few steps, with other items outside training and validation the second time; on one CPU."""
    part = canaries.part(data.corpus, SAMPLE, "val")
    train = np.sort(np.random.default_rng(0).permutation(part.train)[:FITTED])
    part = replace(part, train=train, wrong_pairs=None, wrong_labels=None)
    allowed = np.union1d(train, part.stages["val"].images)
    others = np.setdiff1d(np.arange(len(part.image_ids)), allowed)
    states = []
    for corpus in (part, canaries.exchanged(part, others)):
        torch.manual_seed(0)
        fitted, given = copy.deepcopy(model).train(), bare_data(data, corpus)
        given.batch_size = min(data.batch_size, BATCH)
        trainer = L.Trainer(
            accelerator="cpu",
            devices=1,
            max_epochs=2 if trained else 0,
            limit_train_batches=STEPS,
            num_sanity_val_steps=0,
            gradient_clip_val=1.0,
            callbacks=[SeedEpochs()],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(fitted, given)
        states.append(leaks.digests(fitted))
    return leaks.same_fit(*states)


def _precision(trainer: L.Trainer, tokens: torch.dtype | None) -> torch.dtype:
    """The least precise type that a test computes in, or keeps tokens in."""
    precision = str(trainer.precision)
    if "bf16" in precision or torch.get_float32_matmul_precision() == "medium":
        return torch.bfloat16
    # On a GPU, convolutions round to TF32.
    half = "16" in precision or trainer.strategy.root_device.type == "cuda" or tokens == torch.float16
    return torch.float16 if half else torch.float32


@contextmanager
def _unlogged(trainer: L.Trainer) -> Iterator[None]:
    """A trainer without loggers."""
    loggers, trainer.loggers = trainer.loggers, []
    try:
        yield
    finally:
        trainer.loggers = loggers


def _encoder(model: Matcher, loader: DataLoader[Any], count: int) -> Encode:
    """A function that encodes a few evenly spaced items of a loader as a test pass does."""
    places = np.linspace(0, len(loader.dataset) - 1, count).astype(int)  # type: ignore[arg-type]

    def encode(which: Sequence[int]) -> Embeddings:
        batch = loader.collate_fn([loader.dataset[int(places[item])] for item in which])
        return model.predict_step(move_data_to_device(batch, model.device), 0)[1]

    return encode


@contextmanager
def _in_full_precision(model: Matcher, training: Sequence[nn.Module]) -> Iterator[None]:
    """The model as it was tested, but in float32, so that rounding is not mistaken for a leak."""
    mode, dtype = model.training, model.dtype
    model.eval().float()
    for module in training:
        module.training = True
    try:
        with torch.no_grad():
            yield
    finally:
        model.to(dtype).train(mode)
