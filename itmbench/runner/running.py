"""The folder that a cell runs in, with what an interrupted or failed run left there.

``key`` names the cell that the folder belongs to, ``last.ckpt`` is the checkpoint to resume from, ``failure.json`` and
``error.txt`` say how it failed.
"""

import contextlib
import json
import shutil
import traceback
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import torch

from itmbench import store
from itmbench.checkpoint import read_checkpoint
from itmbench.errors import InputError
from itmbench.files import write_atomically

KEY, LAST, FAILURE, TRACEBACK = "key", "last.ckpt", "failure.json", "error.txt"
FULL = "disk-full"
"""An empty file: the process of one of several devices found a disk full, which says nothing about the cell."""
FILES = (store.RESULT, store.CONFIG, store.PER_QUERY, store.CHECKPOINT)
"""What every finished cell holds."""


class Diverged(RuntimeError):
    """The training loss is not finite."""


@dataclass(frozen=True)
class Failure:
    """A failure, as ``failure.json`` holds it."""

    key: str  # of the cell that failed; a cell with another key runs
    error: str  # type and message, one line
    advice: str  # what to do, one line; may be empty
    time: str  # ISO 8601, UTC


def start(folder: Path, key: str) -> None:
    """Prepare the folder of a cell: keep what an interrupted run of the same cell left, remove anything else."""
    finished = False
    with contextlib.suppress(InputError):
        finished = finished_at(folder, key) is not None
    if not finished and not _belongs_to(folder, key):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        (folder / KEY).write_text(key)
    for partial in folder.glob("*.partial"):
        partial.unlink()
    for name in (FAILURE, TRACEBACK, FULL):
        (folder / name).unlink(missing_ok=True)


def finish(folder: Path, place: Path) -> None:
    """Move a finished cell to its place among the results; a RuntimeError if one of its files is gone."""
    if missing := [name for name in FILES if not (folder / name).is_file()]:
        raise RuntimeError(f"{', '.join(missing)} was removed while the cell ran")
    for name in (LAST, KEY):
        (folder / name).unlink(missing_ok=True)
    store.commit(folder, place)


def finished_at(folder: Path, key: str) -> str | None:
    """The time at which exactly this cell finished, or None if the folder does not hold its result."""
    if not (folder / store.RESULT).exists():
        return None
    result = store.Result.load(folder)
    return result.finished if result.key == key else None


def epochs_done(folder: Path, key: str) -> int:
    """Number of trained epochs that exactly this cell would resume after."""
    if not _belongs_to(folder, key):
        return 0
    try:
        return 1 + int(read_checkpoint(folder / LAST, map_location="meta")["epoch"])
    except InputError:  # none, or a damaged one, which is not resumed from
        return 0


def record_failure(folder: Path, key: str, error: BaseException) -> Failure:
    """Record how a cell failed."""
    message = str(error).strip().splitlines()
    line = f"{type(error).__name__}: {message[-1] if message else ''}"
    failure = Failure(key, line, _advice(error), datetime.now(UTC).isoformat(timespec="microseconds"))
    write_atomically(folder / TRACEBACK, "".join(traceback.format_exception(error)))
    write_atomically(folder / FAILURE, json.dumps(asdict(failure), indent=2) + "\n")
    return failure


def recorded_failure(folder: Path, key: str) -> Failure | None:
    """The recorded failure of exactly this cell, if there is one."""
    try:
        failure = Failure(**json.loads((folder / FAILURE).read_text(encoding="utf-8")))
    except (OSError, TypeError, ValueError):
        return None
    return failure if failure.key == key else None


def _belongs_to(folder: Path, key: str) -> bool:
    path = folder / KEY
    return path.exists() and path.read_text() == key


def _advice(error: BaseException) -> str:
    """One line about failures that the user can do something about; empty for others."""
    if isinstance(error, Diverged):
        return "lower model.lr, lengthen model.warmup, or train in trainer.precision bf16-mixed or 32"
    if isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error):
        return (
            "out of memory: halve data.batch_size and set trainer.accumulate_grad_batches to 2, "
            "or use trainer.precision bf16-mixed; in evaluation, halve data.eval_batch_size"
        )
    return ""
