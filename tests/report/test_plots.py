from dataclasses import replace

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from itmbench.report.plots import cost_plot, frontier, seeds_plot
from itmbench.report.tables import tables


def axes() -> Axes:
    return Figure().subplots()


def points(drawn: Axes, marked: bool = True) -> list[tuple[float, float]]:
    """Those of the markers, or of the lines."""
    lines = [line for line in drawn.lines if (line.get_marker() != "None") == marked]
    return sorted((x, y) for line in lines for x, y in np.asarray(line.get_xydata()))


def test_seeds_plot_has_a_point_a_seed_and_the_means(frame: pd.DataFrame) -> None:
    table, drawn = tables(frame)[0], axes()
    seeds_plot(drawn, table)
    assert [x for x, _ in points(drawn)] == sorted(table.rows["rSum"])
    assert [label.get_text() for label in drawn.get_yticklabels()] == list(table.cells.index)
    means = [np.asarray(line.get_xdata())[0] for line in drawn.lines if line.get_marker() == "None"]
    np.testing.assert_allclose(means, table.rows.groupby("label")["rSum"].mean()[table.cells.index])
    assert drawn.yaxis_inverted()  # the best is on top


def test_cost_plot_shows_the_cost_that_is_asked_for(frame: pd.DataFrame) -> None:
    table = tables(frame)[0]
    for cost, scale in (("seconds", "linear"), ("epochs", "log")):
        table.rows["epochs"] = [1, 2, 30, 40]
        drawn = axes()
        cost_plot(drawn, table, cost)
        assert points(drawn) == sorted(zip(table.rows[cost], table.rows["rSum"], strict=True))
        assert drawn.get_xscale() == scale
        assert drawn.get_xlabel() == {"seconds": "time", "epochs": "epochs"}[cost]
        assert drawn.xaxis.get_major_formatter()(75) == {"seconds": "75 s", "epochs": "75"}[cost]


def test_a_line_joins_the_methods_that_none_beats_in_both(frame: pd.DataFrame) -> None:
    table = tables(frame)[0]
    made = {  # seconds, pairs a second, rSum
        "cheap": (1, 90, 100), "beaten": (2, 80, 90), "as cheap": (1, 90, 80), "fair": (3, 70, 150),
        "best": (9, 7, 160),
    }  # fmt: skip
    rows = [
        {"label": name, "seconds": cost + seed, "scored_pairs_per_second": rate + seed, "rSum": quality + seed}
        for name, (cost, rate, quality) in made.items() for seed in (-0.5, 0.5)
    ]  # fmt: skip
    table = replace(table, rows=pd.DataFrame(rows))
    for cost in ("seconds", "scored_pairs_per_second"):
        assert list(frontier(table, cost).index) == ["cheap", "fair", "best"]
        drawn = axes()
        cost_plot(drawn, table, cost)
        assert points(drawn, marked=False) == sorted(
            (made[name][cost != "seconds"], made[name][2]) for name in ("cheap", "fair", "best")
        )


def test_a_method_looks_the_same_in_tables_that_rank_it_differently(frame: pd.DataFrame) -> None:
    def colours(shown: pd.DataFrame) -> dict[str, str]:
        drawn = axes()
        cost_plot(drawn, tables(shown)[0])
        return {str(line.get_label()): str(line.get_color()) for line in drawn.lines if line.get_marker() != "None"}

    ranked, turned = colours(frame), colours(frame.assign(rSum=-frame["rSum"]))
    assert list(ranked) == list(reversed(turned))
    assert ranked == turned
    assert len(set(ranked.values())) == 2
