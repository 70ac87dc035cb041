"""Tables as Markdown and LaTeX, for a README and a paper."""

from collections.abc import Callable, Sequence

from itmbench.report.tables import Table

LATEX = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "±": r"$\pm$",
        "–": "--",
        **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    }
)


def markdown(tables: Sequence[Table]) -> str:
    """The main columns as pipe tables; the best of a column is bold."""

    def one(table: Table) -> str:
        head, *rows = _grid(table, lambda text: text.replace("|", r"\|"), "**{}**")
        rule = ["---", *["---:"] * (len(head) - 1)]
        body = "\n".join(f"| {' | '.join(line)} |" for line in (head, rule, *rows))
        return "\n\n".join(filter(None, (f"### {table.title}", table.reason, body))) + "\n"

    return "\n".join(map(one, tables))


def latex(tables: Sequence[Table]) -> str:
    """The main columns as ``table`` environments, which need the booktabs package; the best of a column is bold."""

    def one(table: Table) -> str:
        head, *rows = [" & ".join(line) + r" \\" for line in _grid(table, _escape, r"\textbf{{{}}}")]
        caption = _escape(" ".join(filter(None, (f"{table.title}.", table.reason))))
        return "\n".join(
            (
                r"\begin{table}",
                r"\centering",
                rf"\caption{{{caption}}}",
                rf"\begin{{tabular}}{{l{'r' * len(table.main_columns)}}}",
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

    return "\n".join(map(one, tables))


def _escape(text: str) -> str:
    return text.translate(LATEX)


def _grid(table: Table, escape: Callable[[str], str], bold: str) -> list[list[str]]:
    """Headings and rows as text, every cell escaped and the best of a column put into the ``bold`` format."""
    cells, best = table.cells[table.main_columns], table.best[table.main_columns]
    rows = zip(cells.index, cells.to_numpy(), best.to_numpy(), strict=True)
    return [
        [escape(heading) for heading in ("method", *cells)],
        *(
            [escape(name), *(bold.format(escape(c)) if b else escape(c) for c, b in zip(texts, marks, strict=True))]
            for name, texts, marks in rows
        ),
    ]
