"""Tables as Markdown and LaTeX, for a README and a paper."""

from collections.abc import Callable, Sequence
from itertools import chain

import pandas as pd

from itmbench.report.tables import LEGEND, Table

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


def markdown(tables: Sequence[Table]) -> str:
    """The main columns as pipe tables, what is marked bold; below them what others published, and the legend."""

    def one(table: Table) -> str:
        measured = _pipes(_grid(table, _escape_pipes, "**{}**"))
        others = [(f"#### {f.title}", _pipes(_plain_grid(f.cells, _escape_pipes))) for f in table.published]
        parts = (f"### {table.title}", table.reason, measured, table.warning, *chain.from_iterable(others))
        return "\n\n".join(filter(None, parts)) + "\n"

    return "\n".join((*map(one, tables), f"Numbers are {LEGEND.format(mark='bold')}.\n"))


def latex(tables: Sequence[Table]) -> str:
    """``table`` environments, which need the booktabs package: the main columns, what is marked bold; and below them
    what others published.
    """

    def one(table: Table) -> str:
        legend = f"Numbers are {LEGEND.format(mark='bold')}."
        caption = " ".join(filter(None, (f"{table.title}.", table.reason, table.warning, legend)))
        others = [_environment(f"{f.title}.", _plain_grid(f.cells, _escape)) for f in table.published]
        return "\n".join((_environment(caption, _grid(table, _escape, r"\textbf{{{}}}")), *others))

    return "\n".join(map(one, tables))


def _pipes(grid: list[list[str]]) -> str:
    head, *rows = grid
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, rule, *rows))


def _environment(caption: str, grid: list[list[str]]) -> str:
    head, *rows = [" & ".join(line) + r" \\" for line in grid]
    return "\n".join(
        (
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{_escape(caption)}}}",
            rf"\begin{{tabular}}{{l{'r' * (len(grid[0]) - 1)}}}",
            r"\toprule",
            head,
            r"\midrule",
            *rows,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        )
    )


def _escape_pipes(text: str) -> str:
    return text.replace("|", r"\|")


def _escape(text: str) -> str:
    return text.translate(LATEX)


def _grid(table: Table, escape: Callable[[str], str], bold: str) -> list[list[str]]:
    """Headings and rows as text, every cell escaped and what is marked put into the ``bold`` format."""
    cells, best = table.cells[table.main_columns], table.best[table.main_columns]
    rows = zip(cells.index, cells.to_numpy(), best.to_numpy(), strict=True)
    return [
        [escape(heading) for heading in ("method", *cells)],
        *(
            [escape(name), *(bold.format(escape(c)) if b else escape(c) for c, b in zip(texts, marks, strict=True))]
            for name, texts, marks in rows
        ),
    ]


def _plain_grid(cells: pd.DataFrame, escape: Callable[[str], str]) -> list[list[str]]:
    """Headings and rows as text, every cell escaped."""
    lines = [["method", *cells], *([name, *texts] for name, texts in zip(cells.index, cells.to_numpy(), strict=True))]
    return [[escape(text) for text in line] for line in lines]
