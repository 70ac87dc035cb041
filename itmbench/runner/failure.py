"""What is kept of a cell that failed: what went wrong, and one line of advice."""

import json
import os
import traceback
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import torch

from itmbench.runner.callbacks import Diverged

FAILURE, TRACEBACK = "failure.json", "error.txt"


@dataclass(frozen=True)
class Failure:
    """A failure, as ``failure.json`` in the folder of the running cell holds it; ``error.txt`` has the traceback.

    Args:
        key: of the cell that failed: another one is tried.
        error: type and message, one line.
        advice: what to do, one line; may be empty.
        time: when.
    """

    key: str
    error: str
    advice: str
    time: str


class Recorded(Exception):
    """A cell has failed in other processes, which have written down how."""


def record(folder: Path, key: str, error: BaseException) -> Failure:
    """Write down what went wrong with a cell."""
    message = str(error).strip().splitlines()
    failure = Failure(
        key,
        f"{type(error).__name__}: {message[-1] if message else ''}",
        advice(error),
        datetime.now(UTC).isoformat(timespec="microseconds"),
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / TRACEBACK).write_text("".join(traceback.format_exception(error)), encoding="utf-8")
    partial = folder / f"{FAILURE}.partial"
    partial.write_text(json.dumps(asdict(failure), indent=2) + "\n", encoding="utf-8")
    os.replace(partial, folder / FAILURE)
    return failure


def recorded(folder: Path, key: str) -> Failure | None:
    """The failure of exactly this cell, if there is one."""
    try:
        failure = Failure(**json.loads((folder / FAILURE).read_text(encoding="utf-8")))
    except (OSError, TypeError, ValueError):
        return None
    return failure if failure.key == key else None


def forget(folder: Path) -> None:
    """Remove a failure: the cell is tried again."""
    for name in (FAILURE, TRACEBACK):
        (folder / name).unlink(missing_ok=True)


def advice(error: BaseException) -> str:
    """One line for the failures that a user can do something about; empty for others."""
    if isinstance(error, Diverged):
        return "lower model.lr, lengthen model.warmup, or train in trainer.precision bf16-mixed or 32"
    if isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error):
        return (
            "out of memory: halve data.batch_size and set trainer.accumulate_grad_batches to 2, "
            "or use trainer.precision bf16-mixed; in evaluation, halve data.eval_batch_size"
        )
    return ""
