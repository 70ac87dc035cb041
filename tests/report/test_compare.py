"""Differences as a table; what `itmbench compare` prints is tested in tests/cli."""

import pandas as pd
import pytest

from itmbench.report.compare import differences
from itmbench.report.tables import tables


def test_rows_are_those_of_the_tables_whatever_part_is_asked_for(frame: pd.DataFrame) -> None:
    shown = tables(frame)
    everything = differences(shown)
    assert [list(rows["metric"]) for _, rows in everything] == [
        ["rSum", "hard_negative_accuracy"],
        ["i2t/mAP", "t2i/mAP", "mAP"],
    ]
    for (table, rows), (_, turned) in zip(everything, differences(shown, "dual_triplet"), strict=True):
        assert set(turned["method"]) == {"dual_triplet"} and set(turned["other"]) == {"dual_infonce"}
        assert list(turned["difference"]) == [-value for value in rows["difference"]]
        assert list(turned["low"]) == [-value for value in rows["high"]]
        assert list(turned["p"]) == list(rows["p"])
        assert {*zip(rows["verdict"], turned["verdict"], strict=True)} <= {
            ("better", "worse"),
            ("not distinguishable",) * 2,
        }
        by_metric = rows.set_index("metric")["verdict"]
        assert table.best.at["dual_triplet", table.objective] == (by_metric[table.objective] != "better")
    assert differences(shown, "dual_triplet", ["nobody"]) == []


def test_values_are_in_points_and_those_not_stored_per_query_are_untested(frame: pd.DataFrame) -> None:
    [(_, captions), (_, labels)] = differences(tables(frame.assign(mAP=frame["mAP"].fillna(0.5))), "dual_infonce")
    for rows, metric, scale in ((captions, "rSum", 1), (labels, "t2i/mAP", 100)):
        [row] = rows[rows["metric"] == metric].to_dict("records")
        dataset = "flickr30k-mini" if metric == "rSum" else "mirflickr-mini"
        means = frame[frame["dataset"] == dataset].groupby("method")[metric].mean().to_dict()
        assert row["difference"] == pytest.approx(scale * (means["dual_infonce"] - means["dual_triplet"]))
        assert row["low"] < row["difference"] < row["high"]
    assert list(captions["verdict"][captions["metric"] == "mAP"]) == ["untested"]
    assert captions["p"][captions["metric"] != "mAP"].notna().all()
