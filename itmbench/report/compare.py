"""The differences of some methods, out of all those of their tables."""

from collections.abc import Sequence
from math import isnan

import pandas as pd

from itmbench.evaluation.paired import p_in_words
from itmbench.report.columns import find
from itmbench.report.tables import Table
from itmbench.report.words import without_mark

METRICS = ("rSum", "hard_negative_accuracy", "i2t/mAP", "t2i/mAP", "mAP")


def differences(
    tables: Sequence[Table], first: str | None = None, others: Sequence[str] = ()
) -> list[tuple[Table, pd.DataFrame]]:
    """The tables that hold such a pair of methods, each with one row per metric and pair.

    Columns are those of `itmbench.report.marks.Compared`. Intervals and p-values hold for all pairs and all marked
    columns of a table together, whatever part of them is asked for, so that they agree with its marks.

    ``first`` is compared with ``others`` (methods by their names in the tables), with all others if there are none;
    None for all pairs. Transductive tables are not ranked, and therefore left out.
    """
    compared = [(table, _chosen(table.differences, first, others)) for table in tables]
    return [(table, rows) for table, rows in compared if len(rows)]


def in_text(rows: pd.DataFrame) -> pd.DataFrame:
    """Differences as text, for the terminal and the page."""
    headings = {metric: heading for heading, (metric, _) in find(rows["metric"].unique()).items()}
    return pd.DataFrame(
        {
            "metric": rows["metric"].map(headings),
            "method": rows["method"],
            "other": rows["other"],
            "difference": rows["difference"].map("{:+z.1f}".format),
            "interval": [
                "–" if isnan(low) else f"{low:+z.1f} to {high:+z.1f}"
                for low, high in zip(rows["low"], rows["high"], strict=True)
            ],
            "p": ["–" if isnan(p) else p_in_words(p).removeprefix("= ") for p in rows["p"]],
            "verdict": rows["verdict"],
        }
    )


def _chosen(rows: pd.DataFrame, first: str | None, others: Sequence[str]) -> pd.DataFrame:
    """The rows of ``METRICS``, with ``first`` as "method" and one of ``others`` as "other"."""
    rows = rows[rows["metric"].isin(METRICS)]
    if first is not None:
        signs = {"better": "worse", "worse": "better"}
        turned = rows.rename(columns={"method": "other", "other": "method", "low": "high", "high": "low"})
        turned[["difference", "low", "high"]] *= -1
        both = pd.concat([rows, turned.assign(verdict=turned["verdict"].replace(signs))[rows.columns]])
        names = both[["method", "other"]].map(without_mark)
        rows = both[(names["method"] == first) & (names["other"].isin(others) if others else True)]
    return rows.sort_values("metric", key=lambda metrics: metrics.map(METRICS.index), kind="stable")
