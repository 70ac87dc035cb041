"""``itmbench results``: what is in the store, cell by cell."""

import sys
from collections.abc import Sequence
from dataclasses import asdict
from textwrap import fill
from typing import Any

import pandas as pd

from itmbench import store
from itmbench.errors import InputError
from itmbench.report.columns import find
from itmbench.report.words import in_words

FILTERS = ("benchmark", "dataset", "method", "seed")


def list_cells(root: str, only: str) -> int:
    """Print a line a cell: what it is, its objective, when it ended, and its folder below the results.

    Args:
        root: the results folder.
        only: keep cells that match all of ``key=value`` pairs, comma-separated; keys are benchmark, dataset, method
            and seed.

    Returns:
        0.

    Raises:
        InputError: there is no such folder, a result in it cannot be read, or a filter is wrong.
    """
    wanted = [pair.partition("=")[::2] for pair in only.split(",") if pair]
    if wrong := [key for key, _ in wanted if key not in FILTERS]:
        raise InputError(f"--only {wrong[0]}: not one of {', '.join(FILTERS)}; write such as --only method=scan,seed=0")
    rows = []
    for folder, result in store.results(root):
        if all(str(getattr(result, key)) == value for key, value in wanted):
            objective = result.protocol["objective"]
            rows.append(
                {
                    **{key: getattr(result, key) for key in FILTERS},
                    "objective": f"{objective} {_shown(objective, result.metrics[objective])}",
                    "finished": result.finished[:16].replace("T", " "),
                    "folder": folder.relative_to(root).as_posix(),
                }
            )
    print(pd.DataFrame(rows).to_string(index=False) if rows else f"{root}: no such cells")
    return 0


def show_cells(root: str, cells: Sequence[str]) -> int:
    """Print everything that is known of some cells.

    Returns:
        0.

    Raises:
        InputError: one of them is not in the results, or cannot be read.
    """
    for folder in [store.cell_folder(root, cell) for cell in cells]:
        result = store.Result.load(folder)
        print(folder)
        for name, value in asdict(result).items():
            print("\n".join(_lines(name, value)))
        print("measured")
        print(fill(in_words(result.protocol, result.inductive), 100, initial_indent="  ", subsequent_indent="  "))
        print("files")
        for path in sorted(folder.iterdir()):
            print(f"  {path.name:<24} {path.stat().st_size:>12,} bytes")
        print()
    return 0


def remove_cells(root: str, cells: Sequence[str]) -> int:
    """Remove some cells and say so; none is removed if one of them does not exist.

    Returns:
        0.

    Raises:
        InputError: one of them is not in the results.
    """
    for folder in dict.fromkeys(store.cell_folder(root, cell) for cell in cells):
        print(f"removed {store.remove(root, str(folder))}")
    return 0


def merge_results(root: str, other: str) -> int:
    """Add the cells of another results folder, and say what became of each.

    Returns:
        1 if the place of a cell is taken by another result, else 0.

    Raises:
        InputError: the other folder cannot be merged.
    """
    merged = store.merge(root, other)
    for place in merged.copied:
        print(f"added {place}")
    print(f"{len(merged.copied)} added, {len(merged.equal)} here already, {len(merged.conflicts)} in conflict")
    for place, difference in merged.conflicts.items():
        print(f"CONFLICT {place}: {difference}; nothing was changed, remove one of the two", file=sys.stderr)
    return 1 if merged.conflicts else 0


def _shown(metric: str, value: float) -> str:
    """A value as the tables print it; as it is where they do not."""
    for _, column in find([metric]).values():
        return column.show(value)
    return f"{value:.4f}"


def _lines(name: str, value: Any) -> list[str]:
    """A field of a result: one line, or a heading and a line an entry."""
    if not isinstance(value, dict):
        return [f"{name:<26} {value}"]
    return [name, *(f"  {key:<24} {_inline(entry)}" for key, entry in value.items())]


def _inline(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_inline(entry)}" for key, entry in value.items())
    if isinstance(value, list):
        return "; ".join(map(_inline, value))
    return f"{value:.6g}" if isinstance(value, float) else str(value)
