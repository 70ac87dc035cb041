"""``itmbench compare``: how much better one method is than the others, and whether that is more than luck."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pandas as pd

from itmbench.errors import InputError
from itmbench.evaluation.paired import Difference, PairedResults, holm
from itmbench.report.queries import read_queries
from itmbench.report.ranks import average_ranks, in_words
from itmbench.report.tables import Table, tables
from itmbench.report.words import MARK
from itmbench.store import load_results

METRICS = ("rSum", "hard_negative_accuracy", "i2t/mAP", "t2i/mAP", "mAP")
HOW = (
    "Differences in points (rSum of 600, the others of 100). Intervals: 95 %, paired bootstrap over images and seeds.\n"
    "p: paired permutation test over the images, seeds averaged, corrected after Holm for the tests shown ({tests}).\n"
    "Better or worse: p < 0.05, and 0 is outside the interval. The luck of a single seed is in neither."
)


def compare(results: str, first: str | None, others: Sequence[str], format: str) -> int:
    """Print, table by table, the differences of a method to others or of all pairs; then the average ranks.

    Args:
        results: the folder of the results.
        first: a method; None for all pairs.
        others: those that it is compared with; none for all in its tables.
        format: "table" or "markdown".

    Returns:
        0.

    Raises:
        InputError: there are no results, a method is in none, no two may be compared, or their queries differ.
    """
    frame = load_results(results)
    if frame.empty:
        raise InputError(f"{results}: no results in it yet; run a benchmark first, or name another with --results")
    every = tables(frame, mark=False)
    known = {name for table in every for name in _names(table)}
    named = {name for name in (first, *others) if name}
    if unknown := named - known:
        raise InputError(f"{results}: no results of {min(unknown)}; there are {', '.join(sorted(known))}")
    found = differences(every, first, others)
    compared = [table.title + table.reason for table, _ in found]
    apart = [
        of
        for of in every
        if of.title + of.reason not in compared and of.reason and (not others or named & {*_names(of)})
    ]
    if not found:
        reasons = " ".join(f"{table.title}. {table.reason}" for table in apart)
        raise InputError(f"{results}: no two of the methods asked for may be compared. {reasons}".strip())
    for table, rows in found:
        print(f"{'### ' if format == 'markdown' else ''}{table.title}\n")
        print("\n".join(filter(None, (table.reason, table.warning, _seeds(table, rows)))), end="\n\n")
        shown = _formatted(rows)
        print(_pipes(shown) if format == "markdown" else shown.to_string(index=False), end="\n\n")
    print(HOW.format(tests=sum(len(rows) for _, rows in found)))
    for table in apart:
        print(f"\nNot compared: {table.title}. {table.reason}")
    for summary in average_ranks(every):
        print(f"\n{in_words(summary)}")
    return 0


def differences(
    shown: Sequence[Table], first: str | None = None, others: Sequence[str] = ()
) -> list[tuple[Table, pd.DataFrame]]:
    """The tables that hold such a pair, each with a row for every metric and pair of methods.

    Columns: "metric", "method", "other", "difference", "low", "high" (of the 95 % interval), "p" (corrected for all
    rows of all tables) and "verdict" ("better", "worse" or "not distinguishable"); in points, rSum of
    600, the others of 100.

    Args:
        shown: of ``tables(load_results(...))``; transductive ones are left out, because they are not ranked.
        first: a method, as the tables or the benchmark name it; None for all pairs.
        others: methods; none for all.

    Raises:
        InputError: the queries of a result are missing, or differ from those of another.
    """
    asked = [
        (table, pairs, metrics)
        for table in shown
        if (pairs := _pairs(table, first, others)) and (metrics := _metrics(table))
    ]
    if not asked:
        return []
    tests = sum(len(pairs) * len(metrics) for _, pairs, metrics in asked)
    found = [(table, _differences(table, pairs, metrics, tests)) for table, pairs, metrics in asked]
    adjusted = holm(np.concatenate([rows["p"] for _, rows in found]))
    for (_, rows), p in zip(found, np.split(adjusted, np.cumsum([len(rows) for _, rows in found])[:-1]), strict=True):
        rows["p"] = p
        rows["verdict"] = [Difference(*of).verdict for of in rows[[*Difference._fields]].to_numpy()]
    return found


def _names(table: Table) -> list[str]:
    """The methods of a table, without the mark of a failed audit."""
    return [str(label).removesuffix(f" {MARK}") for label in table.cells.index]


def _pairs(table: Table, first: str | None, others: Sequence[str]) -> list[tuple[str, str]]:
    """Labels of the methods to compare, those of a transductive table never."""
    labels = dict(zip(_names(table), table.cells.index, strict=True))
    if not table.inductive:
        return []
    if first is None:
        return list(combinations(labels.values(), 2))
    return [
        (labels[first], labels[name]) for name in others or labels if first in labels and name in {*labels} - {first}
    ]


def _metrics(table: Table) -> list[str]:
    return [metric for metric in METRICS if metric in table.rows and table.rows[metric].notna().any()]


def _differences(table: Table, pairs: list[tuple[str, str]], metrics: list[str], tests: int) -> pd.DataFrame:
    folders = table.rows.groupby("label")["folder"].apply(list)
    results = PairedResults(
        {name: [*map(read_queries, folders[name])] for pair in pairs for name in pair}, metrics, tests
    )
    rows = []
    for metric in metrics:
        scale = 1 if metric == "rSum" else 100
        for pair in pairs:
            *found, p = results.difference(*pair, metric)
            rows.append((metric, *pair, *(scale * value for value in found), p))
    return pd.DataFrame(rows, columns=["metric", "method", "other", *Difference._fields])


def _seeds(table: Table, rows: pd.DataFrame) -> str:
    """Which seeds each of the methods has, where they are not the same."""
    seeds = {
        name: sorted(table.rows.loc[table.rows["label"] == name, "seed"])
        for name in dict.fromkeys([*rows["method"], *rows["other"]])
    }
    first, *others = seeds.values()
    if all(of == first for of in others):
        return f"Seeds: {_listed(first)}."
    common = sorted(set(first).intersection(*others))
    each = "; ".join(f"{name} {_listed(of)}" for name, of in seeds.items())
    return f"Seeds differ: {each}; in common {_listed(common) or 'none'}. Every method is the mean over its own."


def _listed(seeds: Sequence[int]) -> str:
    return ", ".join(map(str, seeds))


def _formatted(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows as text."""
    return pd.DataFrame(
        {
            "metric": rows["metric"],
            "method": rows["method"],
            "other": rows["other"],
            "difference": rows["difference"].map("{:+.1f}".format),
            "interval": [f"{low:+.1f} to {high:+.1f}" for low, high in zip(rows["low"], rows["high"], strict=True)],
            "p": ["< 0.001" if p < 0.001 else f"{p:.3f}" for p in rows["p"]],
            "verdict": rows["verdict"],
        }
    )


def _pipes(rows: pd.DataFrame) -> str:
    lines = [list(rows.columns), [*["---"] * 3, *["---:"] * 3, "---"], *rows.to_numpy().tolist()]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
