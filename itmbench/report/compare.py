"""Differences between the methods of a table, with intervals and corrected p-values."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pandas as pd

from itmbench.evaluation.paired import Difference, PairedResults, holm
from itmbench.report.queries import read_queries
from itmbench.report.tables import Table
from itmbench.report.words import without_mark

METRICS = ("rSum", "hard_negative_accuracy", "i2t/mAP", "t2i/mAP", "mAP")


def differences(
    tables: Sequence[Table], first: str | None = None, others: Sequence[str] = ()
) -> list[tuple[Table, pd.DataFrame]]:
    """The tables that hold such a pair of methods, each with one row per metric and pair.

    Columns: "metric", "method", "other", "difference", "low" and "high" (95 % interval), "p" (Holm's correction over
    all rows of all tables) and "verdict" ("better", "worse", "not distinguishable", or "untested" without outcomes per
    query). rSum is in points of 600, the others in percentage points.

    Args:
        tables: from `itmbench.report.tables.tables`; transductive ones are not ranked and therefore left out.
        first: a method by its name in the tables or the benchmark; None for all pairs.
        others: methods to compare it with; all if empty.

    Raises:
        InputError: the outcomes of a result's queries are missing, or its queries differ from those of another.
    """
    selected = [
        (table, pairs, metrics)
        for table in tables
        if (pairs := _pairs(table, first, others))
        and (metrics := [metric for metric in METRICS if metric in table.rows and table.rows[metric].notna().any()])
    ]
    if not selected:
        return []
    tests = sum(len(pairs) * len(metrics) for _, pairs, metrics in selected)
    compared = [(table, _differences(table, pairs, metrics, tests)) for table, pairs, metrics in selected]
    adjusted = iter(holm(np.concatenate([rows["p"] for _, rows in compared])))
    for _, rows in compared:
        rows["p"] = [next(adjusted) for _ in rows.index]
        rows["verdict"] = [Difference(*row).verdict for row in rows[[*Difference._fields]].to_numpy()]
    return compared


def _pairs(table: Table, first: str | None, others: Sequence[str]) -> list[tuple[str, str]]:
    """Labels of the methods to compare; none in a transductive table."""
    labels = {without_mark(label): label for label in table.cells.index}
    if not table.inductive:
        return []
    if first is None:
        return list(combinations(labels.values(), 2))
    return [
        (labels[first], labels[name]) for name in others or labels if first in labels and name in {*labels} - {first}
    ]


def _differences(table: Table, pairs: list[tuple[str, str]], metrics: list[str], tests: int) -> pd.DataFrame:
    """Uncorrected differences."""
    folders = table.rows.groupby("label")["folder"].apply(list)
    queries = {name: [*map(read_queries, folders[name])] for name in dict.fromkeys(sum(pairs, ()))}
    results = PairedResults(queries, metrics, tests)
    rows = []
    for metric in metrics:
        scale = 1 if metric == "rSum" else 100
        for pair in pairs:
            *values, p = results.difference(*pair, metric)
            rows.append((metric, *pair, *(scale * value for value in values), p))
    return pd.DataFrame(rows, columns=["metric", "method", "other", *Difference._fields])
