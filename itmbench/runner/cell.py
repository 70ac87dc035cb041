"""One cell: fit, test the best checkpoint, store; an interrupted cell resumes from its last finished epoch."""

import contextlib
import copy
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import lightning as L
import pandas as pd
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from itmbench import store
from itmbench.errors import InputError
from itmbench.methods.base import KeepEvaluation
from itmbench.runner import audit, cost, failure, ranks, tracker
from itmbench.runner.callbacks import StopWhenDiverged
from itmbench.runner.key import cell_key
from itmbench.runner.lease import Lease
from itmbench.runner.lightning import CellCLI
from itmbench.runner.progress import EpochLines, logged, quiet
from itmbench.runner.spec import Cell
from itmbench.store import environment

KEY, LAST, LOG, PARTIAL = "key", "last.ckpt", "log.txt", "partial"


def run_cell(cell: Cell, cli: CellCLI, root: Path, key: str, lease: Lease) -> None:
    """Train and test a cell, unless that is done already, and commit its folder to the store.

    Args:
        cell: to run.
        cli: config and data of the cell.
        root: the results folder.
        key: of the cell.
        lease: held by this process.

    Raises:
        Diverged: the training loss became NaN or infinite.
        Lost: another process has taken the cell over.
        Recorded: the cell failed on several devices.
    """
    folder = root / store.RUNNING / cell.folder
    start_folder(folder, key)
    if finished(folder, key) is None:  # otherwise the process was killed before the folder was moved
        (folder / store.CONFIG).write_text(cli.dump(), encoding="utf-8")
        with logged(folder / LOG), quiet():
            if cli.devices > 1:
                ranks.run(cell, folder, key, lease.check)
            else:
                train_and_test(cell, cli, folder, key, [CheckLease(lease)])
    lease.check()
    for name in (LAST, KEY):
        (folder / name).unlink(missing_ok=True)
    store.commit(folder, root / cell.folder)


def finished(folder: Path, key: str) -> str | None:
    """Time at which the cell of this key was finished; None if the folder holds no result of it.

    Raises:
        InputError: the result cannot be read.
    """
    if not (folder / store.RESULT).exists():
        return None
    result = store.Result.load(folder)
    return result.finished if result.key == key else None


def start_folder(folder: Path, key: str) -> None:
    """Make an empty folder for a cell, or keep the one of an interrupted run with the same key."""
    mark = folder / KEY
    result_of_it = False
    with contextlib.suppress(InputError):
        result_of_it = finished(folder, key) is not None
    if not result_of_it and not (mark.exists() and mark.read_text() == key):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        mark.write_text(key)
    for partial in folder.glob("*.partial"):
        partial.unlink()
    failure.forget(folder)


def epochs_done(folder: Path, key: str) -> int:
    """Number of epochs that an interrupted run of the cell of this key has finished."""
    mark, last = folder / KEY, folder / LAST
    if not (last.exists() and mark.exists() and mark.read_text() == key):
        return 0
    return 1 + int(torch.load(last, weights_only=True, mmap=True)["epoch"])


def train_and_test(cell: Cell, cli: CellCLI, folder: Path, key: str, callbacks: Sequence[L.Callback] = ()) -> None:
    """Train and test a cell and write the result into its folder; called on every device.

    Args:
        cell: to run.
        cli: config and data of the cell.
        folder: to run in.
        key: of the cell.
        callbacks: in addition to those of every cell.
    """
    trainer, result = _train_and_test(cell, cli, folder, key, callbacks)
    if result is not None:
        # Write atomically and last: if result.json exists, every other file of the cell is complete.
        (folder / PARTIAL).mkdir(exist_ok=True)
        result.save(folder / PARTIAL)
        os.replace(folder / PARTIAL / store.RESULT, folder / store.RESULT)
        (folder / PARTIAL).rmdir()
        tracker.publish(trainer, result, folder)


def _train_and_test(
    cell: Cell, cli: CellCLI, folder: Path, key: str, callbacks: Sequence[L.Callback]
) -> tuple[L.Trainer, store.Result | None]:
    """The trainer and, on rank 0, the result."""
    cost.reset_peak_memory()
    meter, watch, kept = cost.Meter(), audit.StateWatch(), KeepEvaluation()
    tracker.prepare(cli.config, cell)
    trainer, model = cli.make(folder, [meter, EpochLines(), watch, kept, StopWhenDiverged(), *callbacks])
    data = copy.copy(cli.data)  # Lightning attaches the trainer, and with it the model, to the datamodule
    config = cli.resolved()
    del config["seed_everything"]
    recipe = cell_key(config, data.corpus)
    last = folder / LAST
    trainer.fit(model, data, ckpt_path=str(last) if last.exists() else None, weights_only=True)
    chosen = trainer.checkpoint_callback
    assert isinstance(chosen, ModelCheckpoint)
    best, validation = chosen.best_model_path, chosen.best_model_score
    if not best:  # no epoch was trained (max_epochs 0): evaluate the model as it is
        trainer.validate(model, data, verbose=False)
        validation = trainer.callback_metrics["val/objective"]
    trainer.test(model, data, ckpt_path=best or None, verbose=False, weights_only=True)
    trainer.save_checkpoint(folder / store.CHECKPOINT, weights_only=True)
    if not trainer.is_global_zero:
        return trainer, None
    findings = [*audit.audit_few(model, data), watch.finding()]
    evaluation = kept.evaluation
    assert evaluation is not None and validation is not None
    pd.DataFrame(evaluation.per_query).to_parquet(folder / store.PER_QUERY)
    corpus = data.corpus
    result = store.Result(
        key=key,
        benchmark=cell.benchmark,
        dataset=cell.dataset,
        method=cell.method,
        seed=cell.seed,
        metrics=evaluation.metrics,
        validation=float(validation),
        protocol=model.evaluated_by.as_dict(),
        data={
            "name": corpus.name,
            "fingerprint": corpus.fingerprint,
            "counts": [asdict(count) for count in corpus.counts],
        },
        pretraining=model.pretraining,
        inductive=model.inductive,
        parameters=cost.parameters(model),
        flops=meter.flops,
        throughput=meter.throughput(),
        peak_memory=cost.peak_memory(trainer.strategy.root_device),
        seconds=meter.elapsed(),
        epochs=trainer.current_epoch,
        hardware=environment.hardware(trainer),
        versions=environment.versions(),
        git=environment.git_state(),
        finished=datetime.now(UTC).isoformat(timespec="microseconds"),
        recipe=recipe,
        audit={finding.name: finding.as_dict() for finding in findings},
    )
    return trainer, result


class CheckLease(L.Callback):
    """Ends a run if another process has taken its cell over."""

    def __init__(self, lease: Lease) -> None:
        self._lease = lease

    def on_train_batch_end(self, *arguments: Any) -> None:
        self._lease.check()

    def on_validation_start(self, *arguments: Any) -> None:
        self._lease.check()

    def on_test_start(self, *arguments: Any) -> None:
        self._lease.check()
