from dataclasses import replace

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from itmbench.report.columns import find
from itmbench.report.plots import cost_plot, curve_plot, curves, looks, pareto_front, seeds_plot
from itmbench.report.tables import tables


def axes() -> Axes:
    return Figure().subplots()


def points(drawn: Axes, marked: bool = True) -> list[tuple[float, float]]:
    """Those of the markers, or of the lines."""
    lines = [line for line in drawn.lines if (line.get_marker() != "None") == marked]
    return sorted((x, y) for line in lines for x, y in np.asarray(line.get_xydata()))


def test_seeds_plot_has_a_point_a_seed_and_the_means(frame: pd.DataFrame) -> None:
    table, drawn = tables(frame)[0], axes()
    seeds_plot(drawn, table, looks([table]))
    assert [x for x, _ in points(drawn)] == sorted(table.rows["rSum"])
    assert [label.get_text() for label in drawn.get_yticklabels()] == list(table.cells.index)
    means = [np.asarray(line.get_xdata())[0] for line in drawn.lines if line.get_marker() == "None"]
    np.testing.assert_allclose(means, table.rows.groupby("label")["rSum"].mean()[table.cells.index])
    assert drawn.yaxis_inverted()  # the best is on top


def test_cost_plot_shows_the_cost_that_is_asked_for(frame: pd.DataFrame) -> None:
    table = tables(frame)[0]
    for cost, scale in (("seconds", "linear"), ("epochs", "log")):
        table.rows["epochs"] = [1, 2, 3, 30, 40, 40]
        drawn = axes()
        cost_plot(drawn, table, looks([table]), cost)
        assert points(drawn) == sorted(zip(table.rows[cost], table.rows["rSum"], strict=True))
        assert drawn.get_xscale() == scale
        assert drawn.get_xlabel() == {"seconds": "wall time", "epochs": "epochs"}[cost]
        assert drawn.xaxis.get_major_formatter()(75) == {"seconds": "75 s", "epochs": "75"}[cost]


def test_axes_of_quality_use_the_unit_of_the_table(frame: pd.DataFrame) -> None:
    table = tables(frame)[0]
    [(_, (_, map_column))] = find(["mAP"]).items()
    table = replace(table, columns={**table.columns, "rSum": map_column})  # an objective in percent
    seeds, costs = axes(), axes()
    seeds_plot(seeds, table, looks([table]))
    cost_plot(costs, table, looks([table]))
    for axis in (seeds.xaxis, costs.yaxis):
        assert [axis.get_major_formatter()(value) for value in (0.64, 0.625)] == ["64", "62.5"]


def test_a_line_joins_the_pareto_front(frame: pd.DataFrame) -> None:
    table = tables(frame)[0]
    made = {  # seconds, pairs a second, rSum
        "cheap": (1, 90, 100), "beaten": (2, 80, 90), "as cheap": (1, 90, 80), "fair": (3, 70, 150),
        "best": (9, 7, 160),
    }  # fmt: skip
    rows = [
        {"label": name, "seconds": cost + seed, "scored_pairs_per_second": rate + seed, "rSum": quality + seed}
        for name, (cost, rate, quality) in made.items() for seed in (-0.5, 0.5)
    ]  # fmt: skip
    table = replace(table, rows=pd.DataFrame(rows), cells=pd.DataFrame(index=list(made)))
    for cost in ("seconds", "scored_pairs_per_second"):
        assert list(pareto_front(table, cost).index) == ["cheap", "fair", "best"]
        drawn = axes()
        cost_plot(drawn, table, looks([table]), cost)
        assert points(drawn, marked=False) == sorted(
            (made[name][cost != "seconds"], made[name][2]) for name in ("cheap", "fair", "best")
        )


def test_curves_are_means_over_the_seeds_at_every_k_and_level(frame: pd.DataFrame) -> None:
    values = {
        **{
            f"{side}/{kind}@{k}": len(side + kind) / k for side in ("i2t", "t2i") for kind in "PR" for k in (100, 5, 50)
        },
        **{f"t2i/P@r{level / 10}": 1 - level / 20 for level in range(11)},
    }
    spread = frame["seed"] / 100
    captions, labels = tables(frame.assign(**{key: value + spread for key, value in values.items()}))
    assert not curves(captions)  # hit rates of few K
    found = curves(labels)
    assert list(found) == [
        "i2t: precision",
        "i2t: recall",
        "t2i: precision over recall",
        "t2i: precision",
        "t2i: recall",
    ]
    assert found["i2t: recall"] == {5: "i2t/R@5", 50: "i2t/R@50", 100: "i2t/R@100"}
    assert [*found["t2i: precision over recall"]] == [level / 10 for level in range(11)]
    for metrics in found.values():
        drawn = axes()
        curve_plot(drawn, labels, looks([labels]), metrics)
        expected = [(x, values[metric] + 0.01) for x, metric in metrics.items()]
        assert len(drawn.lines) == len(labels.cells) == 2
        for line in drawn.lines:
            np.testing.assert_allclose(np.asarray(line.get_xydata()), expected)
        assert drawn.get_xscale() == ("log" if 100 in metrics else "linear")
        assert drawn.yaxis.get_major_formatter()(0.625) == "62.5"


def test_a_method_looks_the_same_in_every_table(frame: pd.DataFrame) -> None:
    other = frame[frame["dataset"] == "mirflickr-mini"].replace({"method": {"dual_infonce": "another"}})
    shown = tables(pd.concat([frame[frame["dataset"] == "flickr30k-mini"], other]))
    same = looks(shown)
    assert set(same) == {"dual_infonce", "dual_triplet", "another"} and len(set(same.values())) == 3
    for table in shown:
        drawn = axes()
        cost_plot(drawn, table, same)
        for line in drawn.lines:
            if line.get_marker() != "None":
                assert (line.get_color(), line.get_marker()) == same[str(line.get_label())]
