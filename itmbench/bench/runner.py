"""Cells, one after another: fit, test on the best checkpoint, store; what is stored already is not run again."""

import hashlib
import json
import shutil
import sys
import time
import traceback
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

import itmbench
from itmbench.bench import store
from itmbench.bench.spec import Cell, plan
from itmbench.errors import InputError

if TYPE_CHECKING:
    from itmbench.bench.lightning_cli import CellCLI

KEY, ERROR = "key", "error.txt"


def run(spec: str | Path, root: str | Path, only: str = "", dry_run: bool = False) -> list[Cell]:
    """Run every cell of a benchmark that is not in the store; one that fails does not keep the others from running.

    Args:
        spec: the benchmark file.
        root: the results folder.
        only: as for ``plan``.
        dry_run: say what would run, and stop.

    Returns:
        The cells that failed.

    Raises:
        InputError: the benchmark file or one of the configs is wrong; nothing has run then.
        KeyboardInterrupt: the user stopped it; the same call goes on from the last epoch.
    """
    cells = plan(spec, only)
    failed = []
    for number, (cell, cli) in enumerate(zip(cells, _resolve(cells), strict=True), 1):
        print(f"[{number}/{len(cells)}] {cell}: ", end="", flush=True)
        try:
            key = cell_key(cli)
            if is_done(Path(root, cell.folder), key):
                print("done before", flush=True)
            elif dry_run:
                print("to run", flush=True)
            else:
                run_cell(cell, cli, Path(root), key)
        except SystemExit:  # what Lightning makes of Ctrl-C
            raise KeyboardInterrupt from None
        except Exception as error:
            failed.append(cell)
            _record_failure(Path(root, store.RUNNING, cell.folder), error)
    for cell in failed:
        print(f"FAILED {cell}: see {Path(root, store.RUNNING, cell.folder, ERROR)}", file=sys.stderr)
    return failed


def run_cell(cell: Cell, cli: "CellCLI", root: Path, key: str) -> None:
    """Train and test one cell and commit its folder; goes on from the last checkpoint of an interrupted run."""
    from lightning.pytorch.callbacks import ModelCheckpoint

    from itmbench.bench import audit, measure
    from itmbench.bench.progress import EpochLines, quiet

    folder = root / store.RUNNING / cell.folder
    _start_folder(folder, key)
    (folder / store.CONFIG).write_text(cli.dump(), encoding="utf-8")
    started = time.perf_counter()
    measure.reset_peak_memory()
    meter, watch = measure.Meter(), audit.StateWatch()
    with quiet():
        trainer, model = cli.make(folder, [meter, EpochLines(), watch])
        data = cli.data
        last = folder / "last.ckpt"
        trainer.fit(model, data, ckpt_path=str(last) if last.exists() else None, weights_only=True)
        chosen = trainer.checkpoint_callback
        assert isinstance(chosen, ModelCheckpoint)
        best, validation = chosen.best_model_path, chosen.best_model_score
        if not best:  # no epoch was trained (max_epochs 0): the model is measured as it comes
            trainer.validate(model, data, verbose=False)
            validation = trainer.callback_metrics["val/objective"]
        trainer.test(model, data, ckpt_path=best or None, verbose=False, weights_only=True)
        trainer.save_checkpoint(folder / store.CHECKPOINT, weights_only=True)
    findings = [*audit.audit_few(model, data), watch.finding()]
    last.unlink(missing_ok=True)
    evaluation = model.evaluation
    assert evaluation is not None and validation is not None
    pd.DataFrame(evaluation.per_query).to_parquet(folder / store.PER_QUERY)
    corpus = data.corpus
    store.Result(
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
        parameters=measure.parameters(model),
        flops=meter.flops,
        throughput=meter.throughput(),
        peak_memory=measure.peak_memory(),
        seconds=time.perf_counter() - started,
        epochs=trainer.current_epoch,
        hardware=measure.hardware(trainer),
        versions=measure.versions(),
        git=measure.git_state(),
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
        audit={finding.name: finding.as_dict() for finding in findings},
    ).save(folder)
    (folder / KEY).unlink()
    store.commit(folder, root / cell.folder)


def is_done(folder: Path, key: str) -> bool:
    """Whether the store holds a result of exactly this cell."""
    return (folder / store.RESULT).exists() and store.Result.load(folder).key == key


def cell_key(cli: "CellCLI") -> str:
    """Hash of the resolved config, the data and the version of itmbench: all that can change the cell's result."""
    corpus = cli.data.corpus
    text = json.dumps([cli.dump(), corpus.fingerprint, itmbench.__version__])
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _resolve(cells: list[Cell]) -> list["CellCLI"]:
    """The config of every cell, with all defaults; wrong ones are told all at once, before anything runs."""
    from itmbench.bench.lightning_cli import CellCLI
    from itmbench.bench.progress import quiet

    resolved, wrong = [], []
    with quiet():
        for cell in cells:
            try:
                resolved.append(CellCLI(cell.config))
            except InputError as error:
                wrong.append(f"{cell}: {error}")
    if wrong:
        raise InputError(" | ".join(wrong))
    return resolved


def _start_folder(folder: Path, key: str) -> None:
    """An empty folder for a cell, or the one that an interrupted run of the same cell has left."""
    mark = folder / KEY
    if not mark.exists() or mark.read_text() != key:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        mark.write_text(key)


def _record_failure(folder: Path, error: Exception) -> None:
    """Say in one line what went wrong, and keep the whole of it beside the cell."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ERROR).write_text("".join(traceback.format_exception(error)), encoding="utf-8")
    print(
        f"failed: {type(error).__name__}: {str(error).strip().splitlines()[-1] if str(error).strip() else ''}",
        flush=True,
    )
