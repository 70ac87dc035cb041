"""Every text format holds the same tables, escaped, with marks and a legend."""

import html
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from itmbench.report.formats import latex, markdown, plain
from itmbench.report.page import page
from itmbench.report.tables import tables
from itmbench.store import PER_QUERY

More = Callable[..., pd.DataFrame]
FORMATS = {
    "plain": plain,
    "markdown": markdown,
    "latex": latex,
    "page": lambda shown: html.unescape(page(shown, Path())),
    "notebook": lambda shown: html.unescape("".join(table._repr_html_() for table in shown)),
}


@pytest.mark.parametrize("name", FORMATS)
def test_every_number_heading_and_note_is_there(name: str, frame: pd.DataFrame) -> None:
    shown = tables(frame)
    text = " ".join(FORMATS[name](shown).split())
    for table in shown:
        assert [heading for heading in table.main_columns if heading not in text] == []
        numbers = {n for cell in table.cells[table.main_columns].to_numpy().ravel() for n in cell.split(" ± ")}
        assert [number for number in numbers if number not in text] == []
    assert "no other method is better at 5" in text and "mAP is the mean average precision" in text
    assert text.count("rSum is the sum of R@1, R@5 and R@10 of both directions (0 to 600)") == (
        2 if name == "page" else 1
    )


def test_plain_text_fits_120_columns_and_marks_with_stars(frame: pd.DataFrame, more: More) -> None:
    text = plain(tables(frame))
    assert max(map(len, text.splitlines())) <= 120 and "\\" not in text
    for table in tables(frame):
        for heading in table.main_columns:
            for method in table.cells.index:
                cell, best = str(table.cells.at[method, heading]), table.best.at[method, heading]
                assert re.search(rf"{method} .*{re.escape(cell)}{'[*]' if best else r'(?![*])'}", text), (
                    method,
                    heading,
                )
    long = "a [bold] method with a name that is by far too long for any table " * 2
    assert long in plain(tables(pd.concat([frame, more(method=long)])))


def test_markdown_rows_are_the_methods_with_marks_in_bold(frame: pd.DataFrame) -> None:
    shown = tables(frame)
    blocks = [block.splitlines() for block in markdown(shown).split("\n\n") if block.startswith("|")]
    for table, lines in zip(shown, blocks, strict=True):
        head, rule, *rows = ([cell.strip() for cell in line.strip("|\n").split("|")] for line in lines)
        assert head == ["method", *table.main_columns] and re.fullmatch(r":-+", rule[0])
        for row, method in zip(rows, table.cells.index, strict=True):
            marks = table.best.loc[method, table.main_columns]
            texts = table.cells.loc[method, table.main_columns]
            assert row == [method, *(f"**{t}**" if m else t for t, m in zip(texts, marks, strict=True))]


def test_latex_is_balanced_and_complete(frame: pd.DataFrame) -> None:
    shown = tables(frame)
    text = latex(shown).partition("\n")[2]  # the first line names the packages
    assert text.isascii() and not re.search(r"(?<!\\)[_%#]", text)
    environments = re.findall(r"\\begin\{tabular\}\{(l?r+)\}(.*?)\\end\{tabular\}", text, re.DOTALL)
    assert len(environments) == 4  # quality and costs of two tables
    for columns, body in environments:
        rows = [line for line in body.splitlines() if line.endswith(r"\\")]
        assert len(rows) == 3 and {row.count(" & ") for row in rows} == {len(columns) - 1}
        assert r"\toprule" in body and r"\bottomrule" in body
    best = str(shown[0].cells.at["dual_infonce", "rSum"]).replace("±", r"$\pm$")
    assert rf"\bfseries {best} " in text


NAMES = ["[a] b", "* star", "a|b_<i>&100 %", r"\input{x}", "x^2 ~ {y} #3 $z$", "é ≤ ∞"]


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="no pdflatex (Debian: texlive-latex-recommended)")
def test_latex_compiles_and_fits_the_page(tmp_path: Path, frame: pd.DataFrame, more: More) -> None:
    named = pd.concat([frame, *(more(method=name) for name in NAMES)], ignore_index=True)
    head, body = r"\documentclass{article}\usepackage{booktabs,graphicx}\begin{document}", latex(tables(named))
    (tmp_path / "tables.tex").write_text(f"{head}\n{body}\\end{{document}}\n")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "tables.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Overfull" not in done.stdout and "Missing character" not in done.stdout
    assert (tmp_path / "tables.pdf").stat().st_size > 10_000


def test_names_are_escaped(frame: pd.DataFrame) -> None:
    shown = tables(frame.replace({"method": {"dual_infonce": "a|b_<i>&100 %"}}))
    assert r"a\|b_&lt;i&gt;&amp;100 %" in markdown(shown) and "<i>" not in markdown(shown)
    assert r"a\textbar{}b\_\textless{}i\textgreater{}\&100 \%" in latex(shown)
    for text in (page(shown, Path()), shown[0]._repr_html_()):
        assert "a|b_&lt;i&gt;&amp;100 %" in text and "<i>" not in text


def test_a_failed_audit_is_marked_in_every_format(frame: pd.DataFrame, more: More) -> None:
    bad, good = {"passed": False, "found": 0.1, "bound": 1e-5}, {"passed": True, "found": 0.0, "bound": 0}
    leaky = more(method="leaky", audit={"alone": bad, "pairs": good, "frozen": bad})
    same = frame["folder"][frame["rSum"] == leaky["rSum"][0]].iloc[0]
    shutil.copy(Path(same, PER_QUERY), leaky["folder"][0])
    table, other = tables(pd.concat([frame, leaky], ignore_index=True))
    assert table.warning.startswith("† failed the leak audit") and "leaky (an item's embedding" in table.warning
    assert "testing changes the model" in table.warning and "score" not in table.warning
    assert not other.warning
    for name, write in FORMATS.items():
        text, dagger = write([table]), r"$\dagger$" if name == "latex" else "†"
        assert f"leaky {dagger}" in text and table.warning.replace("†", dagger) in text.replace("&#x27;", "'"), name
