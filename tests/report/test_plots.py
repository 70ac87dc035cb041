import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from itmbench.report.plots import cost_plot, seeds_plot
from itmbench.report.tables import tables


def axes() -> Axes:
    return Figure().subplots()


def points(drawn: Axes) -> list[tuple[float, float]]:
    return sorted(
        (x, y) for line in drawn.lines if line.get_marker() != "None" for x, y in np.asarray(line.get_xydata())
    )


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


def test_a_method_looks_the_same_in_tables_that_rank_it_differently(frame: pd.DataFrame) -> None:
    def colours(shown: pd.DataFrame) -> dict[str, str]:
        drawn = axes()
        cost_plot(drawn, tables(shown)[0])
        return {str(line.get_label()): str(line.get_color()) for line in drawn.lines}

    ranked, turned = colours(frame), colours(frame.assign(rSum=-frame["rSum"]))
    assert list(ranked) == list(reversed(turned))
    assert ranked == turned
    assert len(set(ranked.values())) == 2
