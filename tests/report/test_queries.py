import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from itmbench.errors import InputError
from itmbench.evaluation.paired import PairedResults
from itmbench.report.queries import read_queries
from itmbench.store import PER_QUERY


@pytest.mark.parametrize(
    ("dataset", "metric"),
    [("flickr30k-mini", "t2i/R@5"), ("flickr30k-mini", "rSum"), ("mirflickr-mini", "mAP")],
)
def test_stored_queries_give_the_mean_of_the_stored_metrics(frame: pd.DataFrame, dataset: str, metric: str) -> None:
    rows = frame[(frame["dataset"] == dataset) & (frame["method"] == "dual_infonce")]
    results = PairedResults({"a": [*map(read_queries, rows["folder"])]}, [metric])
    assert results.mean("a", metric) == pytest.approx(rows[metric].mean())


def test_what_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    def refused() -> str:
        with pytest.raises(InputError, match=f"^{re.escape(str(tmp_path / PER_QUERY))}: [^\n]*$") as error:
            read_queries(tmp_path)
        return str(error.value)

    assert "no such file" in refused()
    pd.DataFrame({"direction": ["i2t"], "query": ["a"], "rank": np.ones(1)}).to_parquet(tmp_path / PER_QUERY)
    assert "has no image ids" in refused()
    (tmp_path / PER_QUERY).write_text("no table")
    assert "cannot be read" in refused()
