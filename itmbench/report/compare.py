"""``itmbench compare``: how much better one method is than the others, and whether that is more than luck."""

from collections.abc import Sequence

import pandas as pd

from itmbench.bench.store import load_results
from itmbench.errors import InputError
from itmbench.report.paired import difference
from itmbench.report.tables import Table, tables

METRICS = ("rSum", "hard_negative_accuracy", "i2t/mAP", "t2i/mAP", "mAP")


def compare(results: str, first: str, others: Sequence[str], format: str) -> int:
    """Print, table by table, the differences of a method to others.

    Args:
        results: the folder of the results.
        first: a method.
        others: those that it is compared with; none for all in its tables.
        format: "table" or "markdown".

    Returns:
        0.

    Raises:
        InputError: there are no results, or no table holds both methods.
    """
    frame = load_results(results)
    if frame.empty:
        raise InputError(f"{results}: no results in it yet; run a benchmark first, or name another with --results")
    found = [(table, differences(table, first, others)) for table in tables(frame)]
    found = [(table, rows) for table, rows in found if not rows.empty]
    if not found:
        known = ", ".join(sorted(frame["method"].unique()))
        raise InputError(f"{results}: no table holds {first} and another of the methods asked for; there are {known}")
    for table, rows in found:
        seeds = table.rows.groupby("label")["seed"].nunique()
        counts = f"{seeds.min()}" if seeds.min() == seeds.max() else f"{seeds.min()} to {seeds.max()}"
        print(f"{'### ' if format == 'markdown' else ''}{table.title}")
        print(
            f"\n{first} minus another, with 95 % intervals (paired bootstrap over images and seeds; {counts} seeds)\n"
        )
        print(_pipes(rows) if format == "markdown" else rows.to_string(index=False))
        print()
    return 0


def differences(table: Table, first: str, others: Sequence[str] = ()) -> pd.DataFrame:
    """A row for every metric and other method of a table: "metric", "other", "difference", "interval", "verdict".

    Args:
        table: one of ``tables(load_results(...))``.
        first: a method of it.
        others: methods of it; none for all.
    """
    folders = table.rows.groupby("label", sort=False)["folder"].apply(list)
    if first not in folders:
        return pd.DataFrame()
    rows = []
    for metric in METRICS:
        if metric not in table.rows or table.rows[metric].isna().all():
            continue
        scale = 1 if metric == "rSum" else 100
        for other in others or [name for name in table.cells.index if name != first]:
            if other not in folders:
                continue
            found = difference(folders[first], folders[other], metric)
            low, high = scale * found.low, scale * found.high
            verdict = "better" if low > 0 else "worse" if high < 0 else "could be luck"
            rows.append((metric, other, f"{scale * found.difference:+.1f}", f"{low:+.1f} to {high:+.1f}", verdict))
    return pd.DataFrame(rows, columns=["metric", "other", "difference", "interval", "verdict"])


def _pipes(rows: pd.DataFrame) -> str:
    lines = [list(rows.columns), ["---", "---", "---:", "---:", "---"], *rows.to_numpy().tolist()]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
