"""Charts of the page that are plain HTML, so that they are text, follow its colours and fit a narrow screen."""

from typing import NamedTuple

import numpy as np
import pandas as pd

from itmbench.report.columns import find, percent
from itmbench.report.compare import differences, in_text
from itmbench.report.tables import Table
from itmbench.report.words import without_mark

BARS = 6
"""Most metrics drawn as bars."""
SHAPES = {
    "o": '<circle cx="6" cy="6" r="5"/>',
    "s": '<path d="M1.5 1.5h9v9h-9z"/>',
    "^": '<path d="M6 1l5 10H1z"/>',
    "D": '<path d="M6 0l6 6-6 6-6-6z"/>',
    "v": '<path d="M6 11L1 1h10z"/>',
    "P": '<path d="M4 0h4v4h4v4H8v4H4V8H0V4h4z"/>',
    "X": '<path d="M3 0l3 3 3-3 3 3-3 3 3 3-3 3-3-3-3 3-3-3 3-3-3-3z"/>',
}
"""Matplotlib's markers as SVG shapes in a box of 12 by 12."""


class Bar(NamedTuple):
    """A method's mean of a metric: as the table's cell, and in percent of the axis with mean ± deviation."""

    method: str
    text: str
    value: float
    low: float
    high: float


class Line(NamedTuple):
    """A difference as text, and its place, its interval and zero in percent of the axis; None where untested."""

    method: str
    difference: str
    interval: str
    p: str
    verdict: str
    at: float | None
    low: float | None
    high: float | None
    zero: float | None


def mark(colour: str, marker: str) -> str:
    """A method's marker as an ``svg`` element."""
    return f'<svg class="mark" viewBox="0 0 12 12" aria-hidden="true" fill="{colour}">{SHAPES[marker]}</svg>'


def sort_keys(table: Table) -> dict[str, dict[str, float]]:
    """Heading -> method -> mean over the seeds, unrounded; methods without a value are missing."""
    methods, found = table.rows.groupby("label"), {}
    for heading, (key, _) in find(map(str, table.rows)).items():
        found[heading] = {str(label): float(mean) for label, mean in methods[key].mean().dropna().items()}
    return {**found, "seeds": {str(label): float(count) for label, count in methods.size().items()}}


def bars(table: Table) -> dict[str, list[Bar]]:
    """Heading -> bars, best method of the table first; of the first metrics in percent."""
    found: dict[str, list[Bar]] = {}
    for heading, (key, column) in find(map(str, table.rows)).items():
        if heading in table.quality_columns and column.show is percent and len(found) < BARS:
            methods = table.rows.groupby("label")[key]
            means, deviations = 100 * methods.mean(), 100 * methods.std().fillna(0)
            found[heading] = [
                Bar(
                    name,
                    str(table.cells.at[name, heading]),
                    means[name],
                    max(0.0, means[name] - deviations[name]),
                    min(100.0, means[name] + deviations[name]),
                )
                for name in table.cells.index
                if not np.isnan(means[name])
            ]
    return found


def against_best(table: Table) -> tuple[str, list[Line]]:
    """The best ranked method, and how the others differ from it in the objective; none if there is nothing to show."""
    best = str(table.ranked[0]) if table.ranked else ""
    others = [str(name) for name in table.cells.index if name != best] if best else []
    pairs = [rows for name in others for _, rows in differences([table], without_mark(name), [without_mark(best)])]
    rows = pd.concat([table.differences[:0], *pairs])
    rows = rows[rows["metric"] == table.objective]
    ends = np.nan_to_num(rows[["difference", "low", "high"]].to_numpy(dtype=float))
    bottom, top = min(0.0, ends.min(initial=0.0)), max(0.0, ends.max(initial=0.0))

    def place(value: float) -> float | None:
        return None if np.isnan(value) else 100 * float(value - bottom) / (float(top - bottom) or 1.0)

    lines, numbers = [], rows[["difference", "low", "high"]].to_numpy(dtype=float)
    for (_, text), (at, low, high) in zip(in_text(rows).iterrows(), numbers, strict=True):
        method, difference, interval, p, verdict = map(str, text.drop(["metric", "other"]))
        lines.append(Line(method, difference, interval, p, verdict, place(at), place(low), place(high), place(0.0)))
    return best, lines
