"""Tables as plain text, Markdown and LaTeX."""

import html
import re
import textwrap
from collections.abc import Sequence

import numpy as np
import pandas as pd
from pandas.io.formats.style import Styler

from itmbench.report.tables import Table, escaped, legend

LATEX = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "±": r"$\pm$",
        "–": "--",
        "†": r"$\dagger$",
        "∞": r"$\infty$",
        "≤": r"$\leq$",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        "[": "{[}",  # after a line break, brackets and stars are its arguments
        "*": "{*}",
        **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    }
)


def plain(tables: Sequence[Table], width: int = 120) -> str:
    """The main columns, quality above costs, wrapped by columns to a width; a star follows what is marked."""
    blocks = []
    for table in tables:
        stars = np.where(table.best, "*", np.where(table.best.any(), " ", ""))
        starred = table.cells + stars
        blocks += [table.title, table.reason, _columns(starred[table.quality_columns], width)]
        blocks += [_columns(starred[[h for h in table.main_columns if h in table.cost_columns]], width), table.warning]
        blocks += [text for figures in table.published for text in (figures.title, _columns(figures.cells, width))]
    return "\n\n".join(filter(None, [*blocks, textwrap.fill(legend(tables, "*"), width)])) + "\n"


def markdown(tables: Sequence[Table]) -> str:
    """The main columns as pipe tables with marked cells in bold, published figures, and the legend."""
    blocks = []
    for table in tables:
        cells = table.cells[table.main_columns]
        bold = cells.where(~table.best[table.main_columns], "**" + cells + "**").reset_index(names="method")
        blocks += [f"### {_markdown(table.title)}", _markdown(table.reason), pipes(bold), _markdown(table.warning)]
        for figures in table.published:
            blocks += [f"#### {_markdown(figures.title)}", pipes(figures.cells.reset_index(names="method"))]
    return "\n\n".join(filter(None, [*blocks, legend(tables, "Bold")])) + "\n"


def latex(tables: Sequence[Table]) -> str:
    """``table`` environments (booktabs, graphicx) of quality above costs, marked cells in bold, and published figures.

    What is wider than a line is shrunk to it.
    """
    environments = [r"% needs \usepackage{booktabs, graphicx}"]
    for table in tables:
        caption = " ".join(filter(None, (f"{table.title}.", table.reason, table.warning)))
        costs = [heading for heading in table.main_columns if heading in table.cost_columns]
        styles = [table.styled(_latex, columns) for columns in (table.quality_columns, costs) if columns]
        environments.append(_environment(caption, styles, legend([table], "Bold")))
        environments += [
            _environment(f"{figures.title}.", [escaped(figures.cells, _latex)]) for figures in table.published
        ]
    return "\n".join(environments)


def _environment(caption: str, styles: Sequence[Styler], below: str = "") -> str:
    lines = [r"\begin{table}", r"\centering", rf"\caption{{{_latex(caption)}}}", r"\smallskip"]
    for style in styles:
        tabular = style.to_latex(column_format="l" + "r" * len(style.columns), convert_css=True, hrules=True).strip()
        lines.append(rf"\resizebox{{\ifdim\width>\linewidth\linewidth\else\width\fi}}{{!}}{{{tabular}}}\par\smallskip")
    return "\n".join(
        [*lines, *([rf"\raggedright\footnotesize {_latex(below)}\par"] if below else []), r"\end{table}", ""]
    )


def pipes(rows: pd.DataFrame) -> str:
    """A Markdown table of texts, without the index; the first column is left-aligned."""
    align = ["left"] + ["right"] * (rows.shape[1] - 1)
    return str(rows.map(_markdown).to_markdown(index=False, disable_numparse=True, colalign=align))


def _columns(cells: pd.DataFrame, width: int) -> str:
    """A table as text, in several parts if it is too wide."""
    if not cells.shape[1]:
        return ""
    text = cells.rename_axis(index=None, columns="method").to_string(line_width=width)
    return re.sub(r" *\\?$", "", text, flags=re.MULTILINE)  # pandas ends the parts with a backslash


def _markdown(text: str) -> str:
    return html.escape(text, quote=False).replace("|", r"\|")


def _latex(text: str) -> str:
    return text.translate(LATEX)
