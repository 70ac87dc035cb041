"""``itmbench report``: every format holds the numbers of the tables, on the screen and in a file."""

import io
import os
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from itmbench.cli.main import main
from itmbench.cli.report import FORMATS, report
from itmbench.report.tables import tables


def numbers(frame: pd.DataFrame) -> set[str]:
    """All numbers that the tables show."""
    return {
        number
        for table in tables(frame)
        for text in table.cells[table.main_columns].to_numpy().ravel()
        for number in text.split(" ± ")
    }


def test_csv_is_the_results_store(results: Path, frame: pd.DataFrame) -> None:
    read = pd.read_csv(io.StringIO(report(str(results), "csv", Path())))
    assert list(read.columns) == list(frame.columns)
    np.testing.assert_allclose(read["rSum"], frame["rSum"])
    np.testing.assert_allclose(read["i2t/mAP"], frame["i2t/mAP"])
    assert list(read["protocol"]) == list(frame["protocol"])


def test_markdown_rows_are_the_methods_with_the_best_in_bold(results: Path, frame: pd.DataFrame) -> None:
    text = report(str(results), "markdown", Path())
    tables_of_text = [block.splitlines() for block in re.split(r"\n\n+", text) if block.startswith("|")]
    for table, lines in zip(tables(frame), tables_of_text, strict=True):
        head, _, *rows = ([cell.strip() for cell in line.strip("|\n").split("|")] for line in lines)
        assert head == ["method", *table.main_columns]
        for row, method in zip(rows, table.cells.index, strict=True):
            marks = table.best.loc[method, table.main_columns]
            texts = table.cells.loc[method, table.main_columns]
            assert row == [method, *(f"**{t}**" if m else t for t, m in zip(texts, marks, strict=True))]


def test_latex_is_balanced_and_escaped(results: Path, frame: pd.DataFrame) -> None:
    text = report(str(results), "latex", Path())
    assert text.count(r"\begin{tabular}") == text.count(r"\end{tabular}") == 2
    assert r"dual\_infonce" in text
    assert text.isascii()
    assert not re.search(r"(?<!\\)[_%#]", text)
    for environment in re.findall(r"\\begin\{tabular\}\{(l?r+)\}(.*?)\\end\{tabular\}", text, re.DOTALL):
        rows = [line for line in environment[1].splitlines() if line.endswith(r"\\")]
        assert len(rows) == 3
        assert {row.count(" & ") for row in rows} == {len(environment[0]) - 1}
    best = str(tables(frame)[0].cells.at["dual_infonce", "rSum"]).replace("±", r"$\pm$")
    assert rf"\textbf{{{best}}}" in text


@pytest.mark.parametrize("format", FORMATS)
def test_the_file_holds_what_the_screen_shows(
    results: Path,
    frame: pd.DataFrame,
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
    if format in ("table", "markdown", "latex"):
        assert [number for number in numbers(frame) if number not in shown] == []


@pytest.mark.parametrize(
    ("folder", "out", "message"),
    [
        ("none", "r", "no such results folder"),
        ("", "r", "no results in it yet"),
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
