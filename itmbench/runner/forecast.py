"""What a benchmark has done and what is left of it: ``itmbench bench --dry-run``."""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from itmbench import store
from itmbench.runner import cell, lease
from itmbench.runner.failure import Failure
from itmbench.runner.spec import Cell

if TYPE_CHECKING:
    from itmbench.runner.run import Planned


def show(planned: Sequence["Planned"], root: Path) -> None:
    """Print a line a cell, with its key, and how long the rest may take."""
    results = [result for _, result in store.results(root)] if root.is_dir() else []
    left: list[float | None] = []
    for number, each in enumerate(planned, 1):
        outcome = each.outcome()
        if isinstance(outcome, Failure):
            said = f"failed before ({outcome.error}); --retry-failed tries it again"
        elif outcome:
            said = "done before"
        else:
            expected = expected_seconds(each.cell, results)
            done = 0 if each.force else cell.epochs_done(each.running, each.key)
            epochs = each.cli.config.trainer.max_epochs
            if expected is not None and done and epochs:
                expected *= max(0.0, 1 - done / epochs)
            left.append(expected)
            said = f"to run, {_about(expected)}"
            if done:
                said = f"goes on after epoch {done} of {epochs}, {_about(expected)}"
            if holder := lease.holder(each.running):
                said = f"running ({holder})"
        print(f"[{number}/{len(planned)}] {each.key}  {each.cell}: {said}")
    known = [seconds for seconds in left if seconds is not None]
    unknown = "" if len(known) == len(left) else f", and {len(left) - len(known)} for which nothing like them is done"
    print(f"{len(left)} of {len(planned)} cells left: {_about(sum(known) if known or not left else None)}{unknown}")


def expected_seconds(cell: Cell, results: Sequence[store.Result]) -> float | None:
    """How long a cell may take: the mean of its method on its dataset with other seeds, else of its dataset."""
    alike = [result for result in results if (result.benchmark, result.dataset) == (cell.benchmark, cell.dataset)]
    of_method = [result for result in alike if result.method == cell.method]
    return fmean(result.seconds for result in of_method or alike) if alike else None


def _about(seconds: float | None) -> str:
    if seconds is None:
        return "time unknown"
    minutes = round(seconds / 60)
    if minutes < 1:
        return f"about {round(seconds)} s"
    return f"about {minutes} min" if minutes < 120 else f"about {minutes / 60:.1f} h"
