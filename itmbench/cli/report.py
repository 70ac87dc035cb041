"""``itmbench report``: the results as tables, as a file for another program, or as a page."""

import sys
from collections.abc import Sequence
from pathlib import Path
from shutil import get_terminal_size

from itmbench.cli.arguments import Parser, add_out, add_results_folder, write_out

FORMATS = ("table", "csv", "json", "markdown", "latex", "html")
SCREEN = 120
"""Characters of a line if the output is not a terminal."""


def run(command: str, arguments: Sequence[str]) -> int:
    """Print all results below a folder, or write them to a file."""
    parser = Parser(
        command,
        description="Print or write the results: as tables (table, markdown, latex), as a page (html), or with one "
        "record a cell and every value (csv, json).",
        example="itmbench report\nitmbench report --format csv --out results.csv",
    )
    add_results_folder(parser)
    parser.add_argument("--format", default="table", choices=FORMATS, help="(default: %(default)s)")
    add_out(parser, "file to write (default: the screen)")
    options = parser.parse_args(arguments)

    width = get_terminal_size().columns if options.out is None and sys.stdout.isatty() else SCREEN
    text = report(options.results, options.format, Path(options.out or "").parent, width)
    if options.out is None:
        print(text, end="")
        return 0
    write_out(options.out, text)
    print(f"Written: {options.out}")
    return 0


def report(results: str, format: str, folder: Path, width: int = SCREEN) -> str:
    """The results below a folder as text; links of a page are relative to the folder that it will be written to."""
    from itmbench.report.tables import load, tables

    frame = load(results)
    if format in ("csv", "json"):
        from itmbench.report.export import as_json, csv

        return csv(frame) if format == "csv" else as_json(frame)
    shown = tables(frame)
    if format == "html":
        from itmbench.report.page import page

        return page(shown, folder)
    from itmbench.report.formats import latex, markdown, plain

    match format:
        case "markdown":
            return markdown(shown)
        case "latex":
            return latex(shown)
    return plain(shown, width)
