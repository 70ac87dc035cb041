"""The results on disk: one folder a cell, whole or not there; and all of them as one table.

A cell folder holds ``config.yaml`` (rerun it with ``itmbench fit --config``), ``result.json``, ``per_query.parquet``
(rank or AP of every query) and ``best.ckpt``.
"""

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from itmbench.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

SCHEMA = 2
"""Of ``result.json``; 2 added ``audit``. Results of 1 are read as well."""
RESULT, CONFIG, PER_QUERY, CHECKPOINT = "result.json", "config.yaml", "per_query.parquet", "best.ckpt"
RUNNING = ".running"
"""Folder, below the results, of cells that are not complete."""


@dataclass(frozen=True)
class Result:
    """All that is known of a finished cell, as ``result.json`` holds it.

    Args:
        key: hash of everything that can change the result; a cell whose key is in the store is not run again.
        metrics: of the test stage.
        validation: the objective on the validation stage that chose the checkpoint.
        protocol: the whole protocol that measured it.
        data: name, fingerprint, and the counts found beside the published ones.
        pretraining: "scratch", "unimodal" or "image-text": rows are ranked together only within a class.
        inductive: every test item was encoded without the others.
        flops: to encode one image and one text.
        throughput: items a second.
        peak_memory: bytes.
        seconds: wall time of the cell, training and test.
        audit: check of the leak audit -> passed, found and bound; empty in results of before there was one.
    """

    key: str
    benchmark: str
    dataset: str
    method: str
    seed: int
    metrics: dict[str, float]
    validation: float
    protocol: dict[str, Any]
    data: dict[str, Any]
    pretraining: str
    inductive: bool
    parameters: dict[str, int]
    flops: dict[str, int]
    throughput: dict[str, float]
    peak_memory: int
    seconds: float
    epochs: int
    hardware: dict[str, Any]
    versions: dict[str, str]
    git: dict[str, Any] | None
    finished: str
    schema: int = SCHEMA
    audit: dict[str, dict[str, Any]] = field(default_factory=dict)

    def save(self, folder: Path) -> None:
        """Write ``result.json`` into a folder."""
        (folder / RESULT).write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")

    @staticmethod
    def load(folder: Path) -> "Result":
        """Read ``result.json`` of a cell folder.

        Raises:
            InputError: it is not a result of this schema.
        """
        path = folder / RESULT
        try:
            return Result(**json.loads(path.read_text(encoding="utf-8")))
        except (TypeError, ValueError) as error:
            raise InputError(
                f"{path}: not a result of this version ({error}); remove that folder and run the cell again"
            ) from None


def commit(finished: Path, folder: Path) -> None:
    """Move a complete cell to its place; an older result there is replaced, and at no moment half there."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    old = finished.with_name(finished.name + ".old")
    if folder.exists():
        os.replace(folder, old)
    os.replace(finished, folder)
    shutil.rmtree(old, ignore_errors=True)


def results(root: str | Path) -> Iterator[tuple[Path, Result]]:
    """Every complete cell below a folder, in order of path.

    Raises:
        InputError: there is no such folder, or a file in it is not a result.
    """
    root = Path(root)
    if not root.is_dir():
        raise InputError(f"{root}: no such results folder; run a benchmark first, or name another with --results")
    for path in sorted(root.rglob(RESULT)):
        if RUNNING not in path.relative_to(root).parts:
            yield path.parent, Result.load(path.parent)


def load_results(root: str | Path = "results") -> "pd.DataFrame":
    """All results below a folder as a table, one row a cell.

    Columns: benchmark, dataset, method, seed; every metric by its own name; and what a comparison needs beside them
    (validation, protocol and data fingerprint, pretraining, failed checks of the leak audit, parameters,
    FLOPs, throughput, memory, seconds, folder).

    Raises:
        InputError: there is no such folder, or a file in it is not a result.
    """
    import pandas as pd

    return pd.DataFrame([_row(folder, result) for folder, result in results(root)])


def _row(folder: Path, result: Result) -> dict[str, Any]:
    return {
        "benchmark": result.benchmark,
        "dataset": result.dataset,
        "method": result.method,
        "seed": result.seed,
        **result.metrics,
        "validation": result.validation,
        "protocol": json.dumps(result.protocol, sort_keys=True),
        "objective": result.protocol["objective"],
        "data": result.data["name"],
        "fingerprint": result.data["fingerprint"],
        "pretraining": result.pretraining,
        "inductive": result.inductive,
        "audit_failed": ", ".join(name for name, finding in result.audit.items() if not finding["passed"]),
        "parameters": result.parameters["all"],
        "trained_parameters": result.parameters["trained"],
        "image_flops": result.flops["image"],
        "text_flops": result.flops["text"],
        **result.throughput,
        "peak_memory": result.peak_memory,
        "seconds": result.seconds,
        "epochs": result.epochs,
        "folder": str(folder),
    }
