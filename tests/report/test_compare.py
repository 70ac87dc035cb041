"""Differences as a table; what `itmbench compare` prints is tested in tests/cli."""

import pandas as pd
import pytest

from itmbench.evaluation.paired import PairedResults, holm
from itmbench.report.compare import differences
from itmbench.report.queries import read_queries
from itmbench.report.tables import Table, tables


def raw_p(table: Table, metric: str) -> float:
    queries = {str(name): [*map(read_queries, rows["folder"])] for name, rows in table.rows.groupby("label")}
    return PairedResults(queries, [metric]).difference("dual_infonce", "dual_triplet", metric).p


def test_p_values_are_corrected_for_everything_shown(frame: pd.DataFrame) -> None:
    shown = tables(frame, mark=False)
    compared = differences(shown)
    raw = [raw_p(table, metric) for table, rows in compared for metric in rows["metric"]]
    assert len(raw) == 5
    corrected = [p for _, rows in compared for p in rows["p"]]
    assert corrected == pytest.approx(holm(raw), abs=0.01)
    alone = [rows["p"].iloc[0] for table in shown for _, rows in differences([table])]
    assert alone[0] <= corrected[0] and alone != [corrected[0], corrected[2]]


def test_values_are_in_points_and_those_not_stored_per_query_are_untested(frame: pd.DataFrame) -> None:
    [(_, captions), (_, labels)] = differences(tables(frame.assign(mAP=0.5), mark=False), "dual_infonce")
    for rows, metric, scale in ((captions, "rSum", 1), (labels, "t2i/mAP", 100)):
        [row] = rows[rows["metric"] == metric].to_dict("records")
        dataset = "flickr30k-mini" if metric == "rSum" else "mirflickr-mini"
        means = frame[frame["dataset"] == dataset].groupby("method")[metric].mean().to_dict()
        assert row["difference"] == pytest.approx(scale * (means["dual_infonce"] - means["dual_triplet"]))
        assert row["low"] < row["difference"] < row["high"]
    assert list(captions["verdict"][captions["metric"] == "mAP"]) == ["untested"]
    assert captions["p"][captions["metric"] != "mAP"].notna().all()
