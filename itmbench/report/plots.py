"""Plots of a table's rows, for the page and for notebooks: each draws into given axes."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullFormatter

from itmbench.report.columns import find
from itmbench.report.tables import Table

# Told apart by colour-blind readers, legible on white and on black (after Okabe and Ito, Color Universal Design).
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")


def seeds_plot(axes: Axes, table: Table) -> None:
    """The objective of every method: a small point a seed, and a line at their mean; best method on top."""
    for place, (_, colour, marker, rows) in enumerate(_methods(table)):
        values = rows[table.objective]
        axes.plot(values, [place] * len(values), marker, color=colour, alpha=0.9, markersize=7, clip_on=False)
        axes.plot([values.mean()] * 2, [place - 0.3, place + 0.3], color=colour, linewidth=2)
    axes.set_yticks(range(len(table.cells)), list(table.cells.index))
    axes.set_ylim(len(table.cells) - 0.4, -0.6)
    axes.set_xlabel(table.objective)
    axes.margins(x=0.08)
    axes.grid(axis="x", alpha=0.2)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)


def cost_plot(axes: Axes, table: Table, cost: str = "seconds") -> None:
    """The objective against a cost: a point a seed, and a line through the methods that none beats in both.

    Args:
        axes: where to.
        table: whose rows.
        cost: name, in the results, of the cost, or of a rate, of which more is better; on a logarithmic axis where it
            spans more than a factor of ten.
    """
    for name, colour, marker, rows in _methods(table):
        axes.plot(rows[cost], rows[table.objective], marker, color=colour, alpha=0.9, markersize=7, label=name)
    efficient = frontier(table, cost)
    axes.plot(efficient[cost], efficient[table.objective], ":", color="grey", linewidth=1, zorder=0)
    costs = table.rows[cost]
    if costs.min() > 0 and costs.max() / costs.min() > 10:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if costs.max() / costs.min() < 100 else (1,)))
        axes.xaxis.set_minor_formatter(NullFormatter())
    [(heading, (_, column))] = find([cost]).items()
    axes.xaxis.set_major_formatter(lambda value, _: column.show(value))
    axes.set_xlabel(heading)
    axes.set_ylabel(table.objective)
    axes.margins(0.12)
    axes.grid(alpha=0.2)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize="small", loc="upper left", bbox_to_anchor=(1, 1))


def frontier(table: Table, cost: str) -> pd.DataFrame:
    """Means of objective and cost of the methods than which none is both better and cheaper, cheapest first."""
    cheap = 1 if cost.endswith("_per_second") else -1
    means = table.rows.groupby("label")[[cost, table.objective]].mean()
    means = means.sort_values([cost, table.objective], ascending=[cheap < 0, False])
    return means[means[table.objective] > means[table.objective].cummax().shift(fill_value=-np.inf)]


def _methods(table: Table) -> Iterator[tuple[str, str, str, pd.DataFrame]]:
    """Name, colour, marker and rows of each method, best first; tables of the same methods give them the same looks."""
    for name in table.cells.index:
        place = sorted(table.cells.index).index(name)
        rows = table.rows[table.rows["label"] == name]
        yield name, COLOURS[place % len(COLOURS)], MARKERS[place % len(MARKERS)], rows
