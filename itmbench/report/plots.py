"""Plots of a table's rows, for the page and for notebooks; each draws into given axes."""

import re
from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from itmbench.report.cells import read_epochs
from itmbench.report.columns import find, percent
from itmbench.report.tables import Table
from itmbench.report.words import without_mark

Looks = Mapping[str, tuple[str, str]]
"""Method -> colour and marker."""

# Legible on white and on black. Colour-blind readers can tell the first six apart (Okabe and Ito, Color Universal
# Design); a marker always stands with the colour.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7d5fc2", "#80843a")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")


def looks(tables: Iterable[Table]) -> Looks:
    """A colour and a marker for every method of some tables, the same in each."""
    names = sorted({without_mark(name) for table in tables for name in table.cells.index})
    return {name: (COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)]) for i, name in enumerate(names)}


def seeds_plot(axes: Axes, table: Table, looks: Looks) -> None:
    """The objective of every method, best on top: a point for each seed and a line at their mean."""
    for place, (_, colour, marker, rows) in enumerate(_methods(table, looks)):
        values = rows[table.objective]
        axes.plot(values, [place] * len(values), marker, color=colour, alpha=0.9, markersize=7, clip_on=False)
        axes.plot([values.mean()] * 2, [place - 0.3, place + 0.3], color=colour, linewidth=2)
    axes.set_yticks(range(len(table.cells)), list(table.cells.index))
    axes.set_ylim(len(table.cells) - 0.4, -0.6)
    axes.set_xlabel(table.objective)
    _as_in_the_table(axes.xaxis, table)
    axes.margins(x=0.08)
    axes.grid(axis="x", alpha=0.2)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)


def cost_plot(axes: Axes, table: Table, looks: Looks, cost: str = "seconds") -> None:
    """The objective against a cost: a point for each seed, and a dotted line along the Pareto front of the means.

    ``cost`` is a column of the results; of a rate ("..._per_second"), more is better. The axis is logarithmic if it
    spans more than a factor of ten.
    """
    for name, colour, marker, rows in _methods(table, looks):
        axes.plot(rows[cost], rows[table.objective], marker, color=colour, alpha=0.9, markersize=7, label=name)
    front = pareto_front(table, cost)
    axes.plot(front[cost], front[table.objective], ":", color="grey", linewidth=1, zorder=0)
    costs = table.rows[cost]
    if costs.min() > 0 and costs.max() / costs.min() > 10:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 3) if costs.max() / costs.min() < 100 else (1,)))
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        axes.xaxis.set_major_locator(MaxNLocator(4))  # durations are long
    [(heading, (_, column))] = find([cost]).items()
    axes.xaxis.set_major_formatter(lambda value, _: column.show(value))
    axes.set_xlabel(heading)
    axes.set_ylabel(table.objective)
    _as_in_the_table(axes.yaxis, table)
    axes.margins(0.12)
    _open_frame(axes)


def curves(table: Table) -> dict[str, dict[float, str]]:
    """The curves of a table of labels: caption -> position on the axis -> metric, in ascending order."""
    if table.objective != "mAP":
        return {}
    measured = [str(key) for key in table.rows if table.rows[key].notna().any()]
    found = {}
    for side in ("i2t", "t2i"):
        for key, what in ((r"P@r(\d\.\d)", "precision over recall"), (r"P@(\d+)", "precision"), (r"R@(\d+)", "recall")):
            matches = [match for metric in measured if (match := re.fullmatch(f"{side}/{key}", metric))]
            if len(matches) > 1:
                found[f"{side}: {what}"] = dict(sorted((float(match[1]), match[0]) for match in matches))
    return found


def curve_plot(axes: Axes, table: Table, looks: Looks, metrics: Mapping[float, str]) -> None:
    """Means of metrics over the seeds, a line for each method; ``metrics`` is one of the ``curves`` of the table."""
    for name, colour, marker, rows in _methods(table, looks):
        axes.plot([*metrics], rows[[*metrics.values()]].mean(), color=colour, marker=marker, markersize=4, label=name)
    if max(metrics) > 1:
        axes.set_xscale("log")
        axes.set_xticks([*metrics], [f"{k:g}" for k in metrics])
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("K" if max(metrics) > 1 else "recall")
    axes.yaxis.set_major_formatter(lambda value, _: percent(value).removesuffix(".0"))
    _open_frame(axes)


def epochs_plot(axes: Axes, table: Table, looks: Looks, what: str) -> None:
    """The "loss" or "objective" of each epoch: a line for every seed of each method."""
    for name, colour, marker, rows in _methods(table, looks):
        for number, folder in enumerate(rows["folder"]):
            epochs = read_epochs(folder)
            axes.plot(
                [epoch.number for epoch in epochs],
                [getattr(epoch, what) for epoch in epochs],
                color=colour,
                marker=marker,
                markersize=4,
                linewidth=1,
                label="" if number else name,
            )
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("epoch")
    if what == "objective":
        _as_in_the_table(axes.yaxis, table)
    _open_frame(axes)


def _open_frame(axes: Axes) -> None:
    axes.grid(alpha=0.2)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize="small", loc="upper left", bbox_to_anchor=(1, 1))


def pareto_front(table: Table, cost: str) -> pd.DataFrame:
    """Mean cost and objective of the methods on the Pareto front of both, cheapest first."""
    more_is_better = cost.endswith("_per_second")
    means = table.rows.groupby("label")[[cost, table.objective]].mean()
    means = means.sort_values([cost, table.objective], ascending=[not more_is_better, False])
    return means[means[table.objective] > means[table.objective].cummax().shift(fill_value=-np.inf)]


def _as_in_the_table(axis: Axis, table: Table) -> None:
    """Label an axis of the objective in the unit of its column."""
    show = table.columns[table.objective].show
    axis.set_major_formatter(lambda value, _: show(value).removesuffix(".0"))


def _methods(table: Table, looks: Looks) -> Iterator[tuple[str, str, str, pd.DataFrame]]:
    """Name, colour, marker and rows of each method, best first."""
    for name in table.cells.index:
        yield name, *looks[without_mark(name)], table.rows[table.rows["label"] == name]
