"""Tables as plain text, Markdown and LaTeX."""

import html
import re
import textwrap
from collections.abc import Sequence

import numpy as np
import pandas as pd

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
    """``table`` environments (booktabs) of the main columns with marked cells in bold, and of published figures."""
    environments = []
    for table in tables:
        caption = " ".join(filter(None, (f"{table.title}.", table.reason, table.warning, legend([table], "Bold"))))
        styles = [(caption, table.styled(_latex))]
        styles += [(f"{figures.title}.", escaped(figures.cells, _latex)) for figures in table.published]
        for text, style in styles:
            columns = "l" + "r" * len(style.columns)
            environments.append(
                style.to_latex(
                    caption=_latex(text),
                    column_format=columns,
                    convert_css=True,
                    hrules=True,
                    position_float="centering",
                )
            )
    return "\n".join(environments)


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
