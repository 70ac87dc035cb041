import pandas as pd
import pytest

from itmbench.report.charts import against_best, bars, sort_keys
from itmbench.report.tables import tables


def test_sort_keys_are_unrounded_means(frame: pd.DataFrame) -> None:
    table = tables(frame)[0]
    keys = sort_keys(table)
    means = frame[frame["dataset"] == table.dataset].groupby("method")["rSum"].mean()
    assert keys["rSum"] == means.to_dict() and keys["seeds"] == dict.fromkeys(means.index, 3.0)
    assert set(table.main_columns) <= set(keys)


def test_bars_hold_the_text_of_the_table_and_the_deviation_over_seeds(frame: pd.DataFrame) -> None:
    captions, labels = tables(frame)
    found = bars(captions)
    assert list(found) == [f"{side} R@{k}" for side in ("i2t", "t2i") for k in (1, 5, 10)]
    values = 100 * captions.rows[captions.rows["label"] == "dual_infonce"]["i2t/R@1"]
    [bar] = [bar for bar in found["i2t R@1"] if bar.method == "dual_infonce"]
    assert bar.text == captions.cells.at["dual_infonce", "i2t R@1"]
    assert (bar.value, bar.high - bar.value) == pytest.approx((values.mean(), values.std()))
    assert 0 <= bar.low < bar.value < bar.high <= 100
    assert "i2t mAP" in bars(labels) and "wall time" not in bars(labels)


def test_differences_from_the_best_are_those_of_the_table(frame: pd.DataFrame) -> None:
    table = tables(frame)[0]
    best, lines = against_best(table)
    assert best == table.ranked[0] == "dual_infonce"
    [line] = lines
    [row] = table.differences[table.differences["metric"] == "rSum"].to_dict("records")
    difference, low, high = (float(row[what]) for what in ("difference", "low", "high"))
    assert row["method"] == best
    assert (line.method, line.difference) == ("dual_triplet", f"{-difference:+.1f}")
    assert line.interval == f"{-high:+.1f} to {-low:+.1f}" and line.verdict == "worse"
    assert (line.low, line.zero) == (0, 100)
    assert line.at == pytest.approx(100 * (high - difference) / high)
    assert line.high == pytest.approx(100 * (high - low) / high) and low > 0  # the interval leaves out zero


def test_a_table_without_ranked_methods_has_no_differences(frame: pd.DataFrame) -> None:
    assert against_best(tables(frame.assign(inductive=False))[0]) == ("", [])
