"""Which methods of a table differ, and which to mark."""

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

import pandas as pd

from itmbench.errors import InputError
from itmbench.evaluation.paired import SEEDS, Difference, PairedResults, QueryTable, parts
from itmbench.report.cells import read_queries

COLUMNS = ("metric", "method", "other", *Difference._fields, "verdict")


class Compared(NamedTuple):
    """What the outcomes of queries say about the methods of a table.

    Args:
        differences: a row for each metric and pair of methods: "metric", "method", "other", "difference", "low" and
            "high" (simultaneous 95 % interval), "p" (adjusted for all rows) and "verdict" ("better", "worse", "not
            distinguishable", or "untested": too few seeds, or no outcomes per query). rSum is in points of 600, the
            others in percentage points.
        leaders: heading -> methods to mark.
        warning: what was not tested and why.
    """

    differences: pd.DataFrame
    leaders: dict[str, list[str]]
    warning: str = ""


def compare(
    rows: pd.DataFrame,
    methods: Sequence[str],
    ranked: Sequence[str],
    metrics: Mapping[str, str],
    chance: Callable[[str], float],
) -> Compared:
    """Test all pairs of methods on all metrics of a table as one family.

    Args:
        rows: the results, with the method's name as "label".
        methods: those to compare.
        ranked: those that may be marked, and with which marked ones are compared.
        metrics: heading -> metric.
        chance: score of random chance by metric, NaN if unknown. A column is marked if a method beats it.
    """
    empty = Compared(pd.DataFrame(columns=list(COLUMNS)), {})
    metrics = {heading: metric for heading, metric in metrics.items() if parts(metric)}
    if len(methods) < 2 or not metrics:
        return empty
    runs = {name: rows[rows["label"] == name].sort_values("seed") for name in methods}
    fixed = [name for name, cells in runs.items() if _is_fixed(cells, list(metrics.values()))]
    trainings = {
        name: [f"{training} {seed}" for training, seed in cells[["training", "seed"]].to_numpy()]
        for name, cells in runs.items()
        if (cells["training"] != "").all()
    }
    try:
        queries = {name: [*map(read_queries, cells["folder"])] for name, cells in runs.items()}
        for name, cells in runs.items():
            _require_agreement(cells, queries[name], [*metrics.values()])
        results = PairedResults(queries, list(metrics.values()), fixed, trainings)
    except InputError as error:
        return empty._replace(warning=f"No marks: {error}.")
    differences = []
    for metric in metrics.values():
        scale = 1 if metric == "rSum" else 100
        for pair in combinations(methods, 2):
            difference = results.difference(*pair, metric)
            *values, p = difference
            differences.append((metric, *pair, *(scale * value for value in values), p, difference.verdict))
    leaders = {}
    for heading, metric in metrics.items():
        if not all(results.interval(name, metric).low <= chance(metric) for name in ranked):
            names = results.leaders(metric, ranked)
            leaders[heading] = names if results.tested(ranked) > 1 else []
    notes = []
    if not leaders and results.tested(ranked) > 1:
        notes.append("No marks: no method beats random chance.")
    few = [name for name, cells in runs.items() if name not in fixed and len(cells) < SEEDS]
    if few:
        notes.append(f"Not tested, because {SEEDS} seeds are needed: {', '.join(few)}.")
    return Compared(pd.DataFrame(differences, columns=list(COLUMNS)), leaders, " ".join(notes))


def _require_agreement(cells: pd.DataFrame, queries: Sequence[QueryTable], metrics: Sequence[str]) -> None:
    """Raise an InputError if a metric of a cell is not that of its queries: one of them was changed by hand."""
    for (_, cell), table in zip(cells.iterrows(), queries, strict=True):
        for metric in metrics:
            value = 0.0
            for part, weight in (parts(metric) or {}).items():
                outcomes = table.get("ap" if part.k is None else "rank")
                if outcomes is None or not (rows := table["direction"] == part.direction).any():
                    break  # `PairedResults` reports it
                value += weight * float((outcomes[rows] if part.k is None else outcomes[rows] <= part.k).mean())
            else:
                if not abs(value - cell[metric]) <= (1e-2 if metric == "rSum" else 1e-4):  # or it is missing
                    raise InputError(
                        f"{cell['folder']}: {metric} is {cell[metric]:g}, but {value:g} by the outcomes of its "
                        "queries; run that cell again"
                    )


def _is_fixed(cells: pd.DataFrame, metrics: Sequence[str]) -> bool:
    """Whether no seed can change a method: nothing was trained, and nothing random is in it or all seeds agree."""
    if (cells["epochs"] > 0).any():
        return False
    if len(cells) > 1:
        return bool((cells[list(metrics)].nunique() <= 1).all())
    return bool((cells["pretraining"] == "image-text").all() or (cells["parameters"] == 0).all())
