"""One cell: fit, test on the best checkpoint, store; after an interruption, on from the last epoch that it ended."""

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
    """Train and test a cell, unless that has been done, and commit its folder to the store.

    Args:
        cell: which one.
        cli: its config and data.
        root: the results folder.
        key: of the cell.
        lease: held for as long as this takes.

    Raises:
        Diverged: the training loss became NaN or infinite.
        Lost: another process has taken the cell over.
        Recorded: it failed on several devices.
    """
    folder = root / store.RUNNING / cell.folder
    start_folder(folder, key)
    if finished(folder, key) is None:  # else it was killed before its folder was moved
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
    """When exactly this cell was finished, if the folder holds its result.

    Raises:
        InputError: there is a result that cannot be read.
    """
    if not (folder / store.RESULT).exists():
        return None
    result = store.Result.load(folder)
    return result.finished if result.key == key else None


def start_folder(folder: Path, key: str) -> None:
    """An empty folder for a cell, or the one that an interrupted run of the same cell has left."""
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
    """Training epochs that an interrupted run of exactly this cell goes on from."""
    mark, last = folder / KEY, folder / LAST
    if not (last.exists() and mark.exists() and mark.read_text() == key):
        return 0
    return 1 + int(torch.load(last, weights_only=True, mmap=True)["epoch"])


def train_and_test(cell: Cell, cli: CellCLI, folder: Path, key: str, callbacks: Sequence[L.Callback] = ()) -> None:
    """Train and test a cell in its folder, and write its result there; on every device that it runs on.

    Args:
        cell: which one.
        cli: its config and data.
        folder: that it runs in.
        key: of the cell.
        callbacks: beside those of every cell.
    """
    trainer, result = _train_and_test(cell, cli, folder, key, callbacks)
    if result is not None:
        # Written aside and moved into place: where there is a result, there is all of it, and of everything else.
        (folder / PARTIAL).mkdir(exist_ok=True)
        result.save(folder / PARTIAL)
        os.replace(folder / PARTIAL / store.RESULT, folder / store.RESULT)
        (folder / PARTIAL).rmdir()
        tracker.publish(trainer, result, folder)


def _train_and_test(
    cell: Cell, cli: CellCLI, folder: Path, key: str, callbacks: Sequence[L.Callback]
) -> tuple[L.Trainer, store.Result | None]:
    """The trainer, and on the first device the result."""
    cost.reset_peak_memory()
    meter, watch, kept = cost.Meter(), audit.StateWatch(), KeepEvaluation()
    tracker.prepare(cli.config, cell)
    trainer, model = cli.make(folder, [meter, EpochLines(), watch, kept, StopWhenDiverged(), *callbacks])
    data = copy.copy(cli.data)  # Lightning keeps the trainer in it, and with that the model
    config = cli.resolved()
    del config["seed_everything"]
    recipe = cell_key(config, data.corpus)
    last = folder / LAST
    trainer.fit(model, data, ckpt_path=str(last) if last.exists() else None, weights_only=True)
    chosen = trainer.checkpoint_callback
    assert isinstance(chosen, ModelCheckpoint)
    best, validation = chosen.best_model_path, chosen.best_model_score
    if not best:  # no epoch was trained (max_epochs 0): the model is measured as it comes
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
    """Ends a run whose cell another process has taken over."""

    def __init__(self, lease: Lease) -> None:
        self._lease = lease

    def on_train_batch_end(self, *arguments: Any) -> None:
        self._lease.check()

    def on_validation_start(self, *arguments: Any) -> None:
        self._lease.check()

    def on_test_start(self, *arguments: Any) -> None:
        self._lease.check()
