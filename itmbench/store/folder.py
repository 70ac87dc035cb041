"""The results on disk: one complete folder for each cell, and all of them as one table.

A cell folder holds ``config.yaml`` (rerun it with ``itmbench fit --config``), ``result.json``, ``per_query.parquet``
(rank or AP of every query) and ``best.ckpt``.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from itmbench.errors import InputError
from itmbench.files import copy_folder, move_folder, real_path
from itmbench.store.result import CHECKPOINT, PER_QUERY, RESULT, RUNNING, Result

if TYPE_CHECKING:
    import pandas as pd


IRRELEVANT = {"platform", "cores", "itmbench"}
"""Recorded parts of an environment that change no number; the code of itmbench is part of the key."""


def commit(finished: Path, folder: Path) -> None:
    """Move a complete cell to its place, where it replaces an older result."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    old = finished.with_name(finished.name + ".old")
    if folder.exists():
        _discard(old)  # left by a process that was killed before the last line
        move_folder(folder, old, finished.parent)
    move_folder(finished, folder, folder.parent / RUNNING)
    _discard(old)


def _discard(path: Path) -> None:
    """Remove a folder; of a link to one, only the link."""
    if path.is_symlink():
        path.unlink()
    else:
        shutil.rmtree(path, ignore_errors=True)


def results(root: str | Path) -> Iterator[tuple[Path, Result]]:
    """Every complete cell below a folder, sorted by path; links to folders are followed, each once.

    Raises:
        InputError: the folder is missing, or a folder or a result in it cannot be read.
    """
    root = Path(root)
    if not root.is_dir():
        raise InputError(f"{root}: no such results folder; run a benchmark first, or name another with --results")
    waiting, cells = [root], dict[Path, Path]()
    seen = set[Path]()
    while waiting:
        links = list[Path]()
        for folder, inner, names in os.walk(waiting.pop(0), onerror=_refuse):
            inner[:] = [name for name in inner if name != RUNNING]
            links += [path for name in inner if (path := Path(folder, name)).is_symlink()]
            if RESULT in names:
                cells.setdefault(real_path(folder), Path(folder))
        for link in sorted(links):
            if (target := real_path(link)) not in seen and not real_path(root).is_relative_to(target):
                waiting.append(link)
                seen.add(target)
    for cell in sorted(cells.values()):
        yield cell, Result.load(cell)


def _refuse(error: OSError) -> NoReturn:
    raise InputError(
        f"{error.filename}: cannot be read ({error.strerror}), so results may be missing; correct its permissions"
    ) from None


def cell_folder(root: str | Path, cell: str) -> Path:
    """The folder of a complete cell, given relative to the results, as ``itmbench results list`` prints it, or as path.

    Raises:
        InputError: the results hold no such cell.
    """
    top = real_path(root)
    for folder in (Path(os.path.normpath(top / cell)), real_path(cell)):  # a link in here stands for its folder
        inside = folder != top and folder.is_relative_to(top) and RUNNING not in folder.relative_to(top).parts
        if inside and (folder / RESULT).is_file():
            return folder
    raise InputError(f"{cell}: no such cell in {root}; `itmbench results list` names them")


def remove(root: str | Path, cells: Sequence[str]) -> list[Path]:
    """Remove cells (as for ``cell_folder``), all or none, with the folders above them that are then empty; return them.

    Raises:
        InputError: there is no such cell, or it cannot be removed.
    """
    top, removed = real_path(root), list[Path]()
    folders = list(dict.fromkeys(cell_folder(root, cell) for cell in cells))
    for folder in folders:
        if not real_path(folder.parent).is_relative_to(top):
            raise InputError(f"{folder}: lies behind a link, outside {root}, so no cell was removed; remove it there")
    with _scratch(top) as scratch:
        try:
            for folder in folders:
                os.replace(folder, scratch / str(len(removed)))
                removed.append(folder)
        except OSError as error:
            for number, back in enumerate(removed):
                os.replace(scratch / str(number), back)
            raise InputError(
                f"{folder}: cannot be removed ({error.strerror}), so no cell was; correct the permissions"
            ) from None
    for folder in removed:
        with suppress(OSError):  # not empty, or not to be removed
            for above in folder.relative_to(top).parents[:-1]:
                (top / above).rmdir()
    return removed


class Merged(NamedTuple):
    """What a merge did with each cell of the other folder."""

    copied: list[Path]  # missing here
    equal: list[Path]  # here with the same key, metrics and results of every query
    reruns: dict[Path, str]  # here with the same key, but other numbers from another environment; what differs in it
    conflicts: dict[Path, str]  # here with another result, which no environment explains; the difference
    refused: dict[Path, str]  # missing here and not copied; what is wrong with them


def merge(root: str | Path, other: str | Path) -> Merged:
    """Copy the sound cells (``_wrong``) of another results folder; nothing that is here changes.

    Every cell is copied beside the results and then moved to its place, so an interrupted merge leaves only complete
    cells and can be repeated.

    Raises:
        InputError: one folder contains the other or is not a folder, the other holds no cells of its own, or a result
            in it cannot be read.
    """
    top, source = real_path(root), real_path(other)
    if source.is_relative_to(top) or top.is_relative_to(source):
        raise InputError(f"{other}: is, or lies within, {root}, or the other way round; merge two separate folders")
    merged = Merged([], [], {}, {}, {})
    cells = list(results(source))
    if any(folder == source for folder, _ in cells):
        raise InputError(f"{other}: is a cell; name the results folder that it belongs to")
    try:
        (top / RUNNING).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{root}: cannot be a results folder ({error.strerror}); name another") from None
    with _scratch(top) as scratch:
        for number, (folder, result) in enumerate(cells):
            place = folder.relative_to(source)
            if not os.path.lexists(top / place):
                if wrong := _wrong(folder, result, source):
                    merged.refused[place] = wrong
                    continue
                try:
                    (top / place).parent.mkdir(parents=True, exist_ok=True)
                except (FileExistsError, NotADirectoryError):
                    merged.conflicts[place] = "a file lies where its folder would"
                    continue
                new = scratch / str(number)
                copy_folder(folder, new)
                move_folder(new, top / place, (top / place).parent / RUNNING)
                merged.copied.append(place)
            elif not (difference := _difference(top / place, folder, result)):
                merged.equal.append(place)
            elif environment := _other_environment(top / place, result):
                merged.reruns[place] = environment
            else:
                merged.conflicts[place] = difference
    return merged


def _wrong(folder: Path, result: Result, source: Path) -> str:
    """Why a cell of another results folder is not to be added; empty if it is complete, its own and in its place."""
    for path in (folder, *folder.rglob("*")):
        if path.is_symlink() and not (path.exists() and real_path(path).is_relative_to(source)):
            return f"{path.name} is a link to nothing, or to a file outside {source}"
    if missing := [name for name in (PER_QUERY, CHECKPOINT) if not (folder / name).is_file()]:
        return f"no {' and no '.join(missing)}"
    if _queries(folder) is None:
        return f"{PER_QUERY} cannot be read"
    recorded = Path(result.dataset, result.method, f"seed{result.seed}")
    return "" if folder.parts[-3:] == recorded.parts else f"it is the result of {recorded}"


def _queries(folder: Path) -> "pd.DataFrame | None":
    """Results of single queries; None if they cannot be read."""
    import pandas as pd

    try:
        return pd.read_parquet(folder / PER_QUERY)
    except (OSError, ValueError):  # ArrowInvalid is a ValueError
        return None


def _difference(folder: Path, other_folder: Path, other: Result) -> str:
    """How two results at the same place differ; empty if only their cost differs."""
    if not (folder / RESULT).is_file():
        return "something else lies there"
    here = Result.load(folder)
    if here.key != other.key:
        return f"key {here.key} here, {other.key} there"
    if json.dumps(here.metrics, sort_keys=True) != json.dumps(other.metrics, sort_keys=True):
        return f"key {here.key} in both, other metrics"
    queries = [cell / PER_QUERY for cell in (folder, other_folder)]
    if [path.exists() for path in queries] == [True, True]:
        ours, theirs = _queries(folder), _queries(other_folder)
        if ours is None or theirs is None:
            return f"{PER_QUERY} {'here' if ours is None else 'there'} cannot be read"
        same = ours.equals(theirs)
    else:
        same = not any(path.exists() for path in queries)
    return "" if same else f"key {here.key} and metrics in both, other results of single queries"


def _other_environment(folder: Path, other: Result) -> str:
    """What the environment of two runs of the same cell differs in, as far as numbers may depend on it."""
    if not (folder / RESULT).is_file() or (here := Result.load(folder)).key != other.key:
        return ""
    return "; ".join(
        f"{name} {ours.get(name)} here, {theirs.get(name)} there"
        for ours, theirs in ((here.hardware, other.hardware), (here.versions, other.versions))
        for name in sorted({*ours, *theirs} - IRRELEVANT)
        if ours.get(name) != theirs.get(name)
    )


@contextmanager
def _scratch(top: Path) -> Iterator[Path]:
    """A temporary folder on the file system of the results, which readers of results ignore."""
    (top / RUNNING).mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=top / RUNNING, prefix="scratch-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def load_results(root: str | Path = "results") -> "pd.DataFrame":
    """All results below a folder as a table, one row for each cell.

    Columns: benchmark, dataset, method, seed; every metric by its own name; and what a comparison needs in addition
    (validation, protocol and data fingerprint, pretraining, failed checks of the leak audit, parameters, FLOPs,
    throughput, memory, seconds, epochs, steps and budget of the training, choices of validation, folder).
    Protocol, budget and choices are JSON text.

    Raises:
        InputError: the folder is missing, a result in it cannot be read, or the same result lies in two folders.
    """
    import pandas as pd

    cells, seen = list(results(root)), dict[tuple[str, ...], Path]()
    for folder, result in cells:
        first = seen.setdefault((result.key, result.benchmark, result.dataset, result.method), folder)
        if first != folder:
            raise InputError(f"{first} and {folder}: the same result, which would count twice; remove one of the two")
    return pd.DataFrame([_row(folder, result) for folder, result in cells])


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
        "recipe": result.recipe,
        "trials": result.trials,
        "audit_failed": ", ".join(name for name, finding in result.audit.items() if not finding["passed"]),
        "parameters": result.parameters["all"],
        "trained_parameters": result.parameters["trained"],
        **{f"{name}_flops": count for name, count in result.flops.items()},
        **result.throughput,
        "peak_memory": result.peak_memory,
        "seconds": result.seconds,
        "epochs": result.epochs,
        "steps": result.steps,
        "training": result.training,
        "budget": json.dumps(result.budget, sort_keys=True),
        "choices": json.dumps(result.choices, sort_keys=True),
        "folder": str(folder),
    }
