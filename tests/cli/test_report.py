"""``itmbench report``: the same text on the screen and in a file, and one line for what is wrong."""

import io
import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from itmbench.cli.main import main
from itmbench.cli.report import FORMATS, report
from itmbench.files import write_atomically


def test_csv_and_json_hold_every_value_and_shares_in_percent(results: Path, frame: pd.DataFrame) -> None:
    read = pd.read_csv(io.StringIO(report(str(results), "csv", Path())))
    assert list(read.columns) == list(frame.columns)
    assert list(read["protocol"]) == list(frame["protocol"])
    written = json.loads(report(str(results), "json", Path()))
    assert written["unit"] == "percent" and list(written["cells"][0]) == list(frame.columns)
    assert [cell["protocol"] for cell in written["cells"]] == [json.loads(text) for text in frame["protocol"]]
    for values in (read, pd.DataFrame(written["cells"])):
        for key in ("rSum", "truth/rSum", "chance/rSum", "seconds", "parameters"):
            np.testing.assert_allclose(values[key].astype(float), frame[key])
        shares = ("i2t/R@1", "t2i/mAP", "mAP", "unseen/mAP", "chance/mAP", "hard_negative_accuracy", "i2t/P@50")
        for key in shares:
            np.testing.assert_allclose(values[key].astype(float), 100 * frame[key])
        scale = [1 if objective == "rSum" else 100 for objective in frame["objective"]]
        np.testing.assert_allclose(values["validation"], scale * frame["validation"])
    assert written["cells"][0]["mAP"] is None  # of captions


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
    assert main(["report", "--results", str(results), "--format", "csv", "--out", "new/folders/report.csv"]) == 0
    assert os.listdir(tmp_path / "new" / "folders") == ["report.csv"]
    assert len(shown) > 500


@pytest.mark.parametrize(
    ("folder", "out", "message"),
    [
        ("none", "r", "no such results folder"),
        ("folder", "r", "no results yet"),
        (None, "file/r", "cannot be written"),
        (None, "folder", "cannot be written"),
        (None, "cell/best.ckpt", "belongs to a result, so it was not replaced"),
        (None, "cell/result.json", "belongs to a result"),
    ],
)
def test_what_cannot_be_reported_is_one_line_and_leaves_nothing(
    folder: str | None, out: str, message: str, results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    for file in (tmp_path / "cell" / "best.ckpt", tmp_path / "cell" / "result.json"):
        write_atomically(file, "")
    store = results if folder is None else tmp_path / folder
    assert main(["report", "--results", str(store), "--format", "csv", "--out", str(tmp_path / out)]) == 2
    output, error = capsys.readouterr()
    assert not output and error.count("\n") == 1 and message in error
    assert sorted(os.listdir(tmp_path)) == ["cell", "file", "folder"]
    assert not any(file.read_bytes() for file in (tmp_path / "cell").iterdir())
