"""``itmbench report``: the results as a table, a file for another program, or a page."""

import io
from pathlib import Path

import pandas as pd

from itmbench.errors import InputError
from itmbench.report.files import write_text
from itmbench.report.page import page
from itmbench.report.tables import print_tables, tables
from itmbench.report.text import latex, markdown
from itmbench.store import load_results


def report(results: str, format: str, out: str | None) -> int:
    """Show all results below a folder, or write them to a file.

    Args:
        results: the folder.
        format: "csv" is a row a cell with every value; "table", "markdown" and "latex" are the tables; "html" the page.
        out: the file; None for the screen.

    Returns:
        0.

    Raises:
        InputError: there are no results, or the file cannot be written.
    """
    frame = load_results(results)
    if frame.empty:
        raise InputError(f"{results}: no results in it yet; run a benchmark first, or name another with --results")
    if out is not None:
        print(f"Written: {write_text(out, _text(frame, format, Path(out).parent))}")
    elif format == "table":
        print_tables(frame)
    else:
        print(_text(frame, format, Path()), end="")
    return 0


def _text(frame: pd.DataFrame, format: str, folder: Path) -> str:
    """The report as text that will lie in a folder."""
    match format:
        case "csv":
            return frame.to_csv(index=False)
        case "markdown":
            return markdown(tables(frame))
        case "latex":
            return latex(tables(frame))
        case "html":
            return page(frame, folder)
    plain = io.StringIO()
    print_tables(frame, plain)
    return plain.getvalue()
