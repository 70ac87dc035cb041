"""``itmbench report``: the results as tables, as a file for another program, or as a page."""

import io
from collections.abc import Sequence
from pathlib import Path

from itmbench.cli.arguments import Parser, add_results_folder
from itmbench.errors import InputError

FORMATS = ("table", "csv", "markdown", "latex", "html")


def run(command: str, arguments: Sequence[str]) -> int:
    """Print all results below a folder, or write them to a file.

    Returns:
        0.

    Raises:
        InputError: there are no results, or the file cannot be written.
    """
    parser = Parser(
        prog=f"itmbench {command}",
        description="Print or write the results: as tables (table, markdown, latex), as a page (html), or with one row "
        "a cell and every value (csv).",
        example="itmbench report\nitmbench report --format csv --out results.csv",
    )
    add_results_folder(parser)
    parser.add_argument("--format", default="table", choices=FORMATS, help="(default: %(default)s)")
    parser.add_argument("--out", metavar="FILE", help="file to write (default: the screen)")
    options = parser.parse_args(arguments)

    from itmbench.files import write_atomically

    text = report(options.results, options.format, Path(options.out or "").parent)
    if options.out is None:
        print(text, end="")
        return 0
    try:
        write_atomically(options.out, text)
    except OSError as error:
        raise InputError(f"--out {options.out}: cannot be written ({error.strerror}); name another file") from None
    print(f"Written: {options.out}")
    return 0


def report(results: str, format: str, folder: Path) -> str:
    """The results below a folder as text.

    Args:
        results: the results folder.
        format: one of ``FORMATS``.
        folder: where the text will be stored; links of a page are relative to it.

    Raises:
        InputError: there are no results.
    """
    from itmbench.report.page import page
    from itmbench.report.tables import print_tables, tables
    from itmbench.report.text import latex, markdown
    from itmbench.store import load_results

    frame = load_results(results)
    if frame.empty:
        raise InputError(f"{results}: no results in it yet; run a benchmark first, or name another with --results")
    if format == "csv":
        return frame.to_csv(index=False)
    if format == "html":
        return page(frame, folder)
    if format != "table":
        return {"markdown": markdown, "latex": latex}[format](tables(frame))
    plain = io.StringIO()
    print_tables(frame, plain)
    return plain.getvalue()
