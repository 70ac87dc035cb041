import io
import os
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from itmbench.cli.main import main
from itmbench.cli.report import report
from itmbench.errors import InputError
from itmbench.report.tables import tables

FORMATS = ("table", "csv", "markdown", "latex", "html")


def numbers(frame: pd.DataFrame) -> set[str]:
    """All numbers that a display table must hold."""
    return {
        number
        for table in tables(frame)
        for text in table.cells[table.main_columns].to_numpy().ravel()
        for number in text.split(" ± ")
    }


def test_csv_is_the_results_store(results: Path, frame: pd.DataFrame, capsys: pytest.CaptureFixture[str]) -> None:
    assert report(str(results), "csv", None) == 0
    read = pd.read_csv(io.StringIO(capsys.readouterr().out))
    assert list(read.columns) == list(frame.columns)
    np.testing.assert_allclose(read["rSum"], frame["rSum"])
    np.testing.assert_allclose(read["i2t/mAP"], frame["i2t/mAP"])
    assert list(read["protocol"]) == list(frame["protocol"])


def test_markdown_rows_are_the_methods_with_the_best_in_bold(
    results: Path, frame: pd.DataFrame, capsys: pytest.CaptureFixture[str]
) -> None:
    report(str(results), "markdown", None)
    text = capsys.readouterr().out
    tables_of_text = [block.splitlines() for block in re.split(r"\n\n+", text) if block.startswith("|")]
    for table, lines in zip(tables(frame), tables_of_text, strict=True):
        head, _, *rows = ([cell.strip() for cell in line.strip("|\n").split("|")] for line in lines)
        assert head == ["method", *table.main_columns]
        for row, method in zip(rows, table.cells.index, strict=True):
            marks = table.best.loc[method, table.main_columns]
            texts = table.cells.loc[method, table.main_columns]
            assert row == [method, *(f"**{t}**" if m else t for t, m in zip(texts, marks, strict=True))]


def test_latex_is_balanced_escaped_and_complete(
    results: Path, frame: pd.DataFrame, capsys: pytest.CaptureFixture[str]
) -> None:
    report(str(results), "latex", None)
    text = capsys.readouterr().out
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
    assert all(number in text for number in numbers(frame))


@pytest.mark.parametrize("format", FORMATS)
def test_the_file_holds_what_the_screen_shows(
    results: Path, tmp_path: Path, format: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # links of the page are relative to its folder
    assert main(["report", "--results", str(results), "--format", format]) == 0
    shown = capsys.readouterr().out
    assert main(["report", "--results", str(results), "--format", format, "--out", "report.out"]) == 0
    assert (tmp_path / "report.out").read_text(encoding="utf-8") == shown
    assert len(shown) > 500
    assert os.listdir(tmp_path) == ["report.out"]


def test_every_format_shows_the_same_numbers(
    results: Path, frame: pd.DataFrame, capsys: pytest.CaptureFixture[str]
) -> None:
    for format in ("table", "markdown", "latex"):
        report(str(results), format, None)
        text = capsys.readouterr().out
        assert [number for number in numbers(frame) if number not in text] == []


def test_no_such_folder_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "--results", str(tmp_path / "none")]) == 2
    out, err = capsys.readouterr()
    assert not out
    assert err.count("\n") == 1
    assert "no such results folder" in err


def test_an_empty_folder_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "--results", str(tmp_path)]) == 2
    _, err = capsys.readouterr()
    assert err.count("\n") == 1
    assert "no results" in err


def test_a_file_that_cannot_be_written_is_one_line_and_leaves_nothing(results: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"^[^\n]*cannot be written[^\n]*$"):
        report(str(results), "csv", str(tmp_path / "file" / "out.csv"))
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match="cannot be written"):
        report(str(results), "csv", str(tmp_path / "folder"))
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]
