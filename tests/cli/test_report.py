"""``itmbench report``: the same text on the screen and in a file, and one line for what is wrong."""

import io
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from itmbench.cli.main import main
from itmbench.cli.report import FORMATS, report


def test_csv_is_the_results_store(results: Path, frame: pd.DataFrame) -> None:
    read = pd.read_csv(io.StringIO(report(str(results), "csv", Path())))
    assert list(read.columns) == list(frame.columns)
    np.testing.assert_allclose(read["rSum"], frame["rSum"])
    np.testing.assert_allclose(read["i2t/mAP"], frame["i2t/mAP"])
    assert list(read["protocol"]) == list(frame["protocol"])


@pytest.mark.parametrize("format", FORMATS)
def test_the_file_holds_what_the_screen_shows(
    results: Path,
    tmp_path: Path,
    format: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)  # links of the page are relative to its folder
    assert main(["report", "--results", str(results), "--format", format]) == 0
    shown = capsys.readouterr().out
    assert main(["report", "--results", str(results), "--format", format, "--out", "report.out"]) == 0
    assert (tmp_path / "report.out").read_text(encoding="utf-8") == shown
    assert os.listdir(tmp_path) == ["report.out"]
    assert len(shown) > 500


@pytest.mark.parametrize(
    ("folder", "out", "message"),
    [
        ("none", "r", "no such results folder"),
        ("", "r", "no results yet"),
        (None, "file/r", "cannot be written"),
        (None, "folder", "cannot be written"),
    ],
)
def test_what_cannot_be_reported_is_one_line_and_leaves_nothing(
    folder: str | None, out: str, message: str, results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    store = results if folder is None else tmp_path / folder
    assert main(["report", "--results", str(store), "--format", "csv", "--out", str(tmp_path / out)]) == 2
    output, error = capsys.readouterr()
    assert not output and error.count("\n") == 1 and message in error
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]
