"""What is kept of a cell is read as it was written, and what cannot be read is one line."""

import json
import math
import re
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from results_store import write_store

from itmbench.errors import InputError
from itmbench.evaluation.answers import Answer, Example, Examples
from itmbench.evaluation.paired import PairedResults
from itmbench.report.cells import read_epochs, read_examples, read_queries
from itmbench.report.page import page
from itmbench.report.plots import epochs_plot, looks
from itmbench.report.tables import load, tables
from itmbench.store import EXAMPLES, PER_QUERY

LINE = "2026-11-27 06:41:07      epoch {}/{}  train/loss {:.3f} val/objective {:.3f}  17 s\n"
ANSWER = Answer("t0", "i0", "a dog", 0.5, "own", False, [])
EXAMPLES_ = Examples("rank", "", {"i0": ("0.jpg", 7)}, [Example("i2t", "i0", "i0", "", [], 1, True, [ANSWER])])


def test_what_was_written_is_read_and_what_is_missing_is_none(tmp_path: Path) -> None:
    assert read_examples(tmp_path) is None
    (tmp_path / EXAMPLES).write_text(json.dumps(asdict(EXAMPLES_)))
    assert read_examples(tmp_path) == EXAMPLES_


def _change(key: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda content: content.__setitem__(key, value)


@pytest.mark.parametrize(
    "damage",
    [
        _change("measure", "colour"),
        _change("queries", "none"),
        _change("files", {"i0": "0.jpg"}),
        lambda content: content["queries"][0]["results"][0].update(score="high"),
        lambda content: content["queries"][0]["results"][0].update(score=float("nan")),
        lambda content: content["queries"][0].pop("id"),
    ],
)
def test_a_damaged_file_is_one_line(tmp_path: Path, damage: Callable[[dict[str, Any]], None]) -> None:
    content = asdict(EXAMPLES_)
    damage(content)
    (tmp_path / EXAMPLES).write_text(json.dumps(content))
    _refused(tmp_path)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[" * 100_000, None])
def test_a_file_that_is_no_json_or_a_folder_is_one_line(tmp_path: Path, content: bytes | None) -> None:
    (tmp_path / EXAMPLES).mkdir() if content is None else (tmp_path / EXAMPLES).write_bytes(content)
    _refused(tmp_path)


def _refused(folder: Path) -> None:
    with pytest.raises(InputError, match=f"^{re.escape(str(folder / EXAMPLES))}: [^\n]*run that cell again$"):
        read_examples(folder)


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


def test_epochs_are_those_of_the_log(tmp_path: Path) -> None:
    assert read_epochs(tmp_path) == []
    other = "a line that names an epoch\n"
    lines = [LINE.format(1, 3, 2.5, 0.4), LINE.format(2, 3, 2.0, 0.45), other, LINE.format(2, 3, 1.9, 0.5)]
    (tmp_path / "log.txt").write_text("".join(lines) + "2026-11-27 06:41:07      epoch 3/3  val/mAP 60.00 %  18 s\n")
    epochs = read_epochs(tmp_path)
    assert [tuple(epoch) for epoch in epochs[:2]] == [(1, 2.5, 0.4), (2, 1.9, 0.5)]  # the last of those repeated
    assert epochs[2].number == 3 and math.isnan(epochs[2].loss) and epochs[2].objective == 0.6
    (tmp_path / "log.txt").write_bytes(b"\xff epoch 1/2  train/loss much val/objective nan  1 s")
    [damaged] = read_epochs(tmp_path)
    assert math.isnan(damaged.loss) and math.isnan(damaged.objective)


def test_the_page_draws_runs_that_validated_more_than_once(tmp_path: Path) -> None:
    frame = load(write_store(tmp_path))
    assert "epoch by epoch" not in page(tables(frame), tmp_path)
    for folder in frame["folder"]:
        seed = int(folder[-1])
        lines = [LINE.format(epoch, 2, 3 - epoch, 0.1 * epoch + 0.01 * seed) for epoch in (1, 2)]
        Path(folder, "log.txt").write_text("".join(lines))
    shown = tables(frame)
    text = page(shown, tmp_path)
    assert text.count("epoch by epoch") == 2 and text.count("mAP on validation</figcaption>") == 1
    axes = Figure().subplots()
    epochs_plot(axes, shown[1], looks(shown), "objective")
    drawn = [np.asarray(line.get_xydata()) for line in axes.lines]
    expected = [[[1.0, 0.1 + 0.01 * seed], [2.0, 0.2 + 0.01 * seed]] for _ in range(2) for seed in range(3)]
    np.testing.assert_allclose(drawn, expected)
    assert axes.get_legend_handles_labels()[1] == ["dual_infonce", "dual_triplet"]
    assert len({line.get_color() for line in axes.lines}) == 2 and axes.yaxis.get_major_formatter()(0.61) == "61"
