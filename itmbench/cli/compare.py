"""``itmbench compare``: which differences between methods are significant."""

from collections.abc import Sequence

from itmbench.cli.arguments import Parser, add_results_folder


def run(command: str, arguments: Sequence[str]) -> int:
    """Compare methods of a results folder.

    Returns:
        0.

    Raises:
        InputError: there are no results, or the methods cannot be compared.
    """
    parser = Parser(
        prog=f"itmbench {command}",
        description="Differences between methods with 95 % intervals and corrected p-values, table by table.",
        example="itmbench compare sedra vse scan\nitmbench compare --results results --format markdown",
    )
    parser.add_argument("first", nargs="?", metavar="METHOD", help="a method of the results (default: all pairs)")
    parser.add_argument("others", nargs="*", metavar="OTHER", help="methods to compare it with (default: all others)")
    add_results_folder(parser)
    parser.add_argument("--format", default="table", choices=["table", "markdown"])
    options = parser.parse_args(arguments)

    from itmbench.report.compare import compare

    return compare(options.results, options.first, options.others, options.format)
