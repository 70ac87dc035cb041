"""``itmbench compare``: which differences between methods are significant."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from itmbench.cli.arguments import Parser, add_results_folder
from itmbench.errors import InputError, choice

if TYPE_CHECKING:
    import pandas as pd

    from itmbench.report.tables import Table

LEGEND = (
    "Differences in percentage points, of rSum in points of 600. Images and seeds are resampled.\nIntervals (95 %) and "
    "p hold for all methods and marked columns of a table together, shown here or not.\nBetter or worse: p < 0.05. "
    "Untested: fewer than three seeds, or no outcomes per query."
)


def run(command: str, arguments: Sequence[str]) -> int:
    """Print, table by table, the differences of a method to others or of all pairs; then the average ranks."""
    parser = Parser(
        command,
        description="Differences between methods with 95 % intervals and corrected p-values, table by table.",
        example="itmbench compare sedra vse scan\nitmbench compare --results results --format markdown",
    )
    parser.add_argument("first", nargs="?", metavar="METHOD", help="a method of the results (default: all pairs)")
    parser.add_argument("others", nargs="*", metavar="OTHER", help="methods to compare it with (default: all others)")
    add_results_folder(parser)
    parser.add_argument("--format", default="table", choices=["table", "markdown"])
    options = parser.parse_args(arguments)
    results, first, others = options.results, options.first, options.others
    markdown = options.format == "markdown"

    from itmbench.report.compare import differences, in_text
    from itmbench.report.formats import pipes
    from itmbench.report.ranks import average_ranks, in_words
    from itmbench.report.tables import load, tables
    from itmbench.report.words import without_mark

    all_tables = tables(load(results))
    names: dict[str, set[str]] = {table.dataset: set() for table in all_tables}
    for table in all_tables:
        names[table.dataset] |= {*map(without_mark, table.cells.index)}
    known, named = set().union(*names.values()), {name for name in (first, *others) if name}
    if unknown := named - known:
        name = min(unknown)
        hint = "" if _in_folders(name, known) else f"; {choice(name, sorted(known))}"
        raise InputError(f"{results}: {_missing(name, known)}{hint}")
    compared = differences(all_tables, first, others)
    shown = {table.title + table.reason for table, _ in compared}
    left_out = [
        f"{table.title}. {why}"
        for table in all_tables
        if table.title + table.reason not in shown and (named & names[table.dataset] or not named)
        if (why := _why(table, sorted(named - names[table.dataset]), names[table.dataset]))
    ]
    if not compared:
        reasons = " ".join(left_out)
        raise InputError(f"{results}: no two of these methods can be compared. {reasons}".strip())
    for table, rows in compared:
        print(f"{'### ' if markdown else ''}{table.title}\n")
        print("\n".join(filter(None, (table.reason, table.warning, _seeds(table, rows)))), end="\n\n")
        text = in_text(rows)
        print(pipes(text) if markdown else text.to_string(index=False), end="\n\n")
    print(LEGEND)
    for line in left_out:
        print(f"\nNot compared: {line}")
    if first is None:
        for summary in average_ranks(all_tables):
            print(f"\n{in_words(summary)}")
    return 0


def _why(table: "Table", lacking: Sequence[str], names: set[str]) -> str:
    """Why a table has nothing to compare: methods that its dataset lacks, or what it says itself."""
    if not lacking:
        return " ".join(filter(None, (table.reason, table.warning)))
    reason = "; ".join(_missing(name, names) for name in lacking)
    return f"{reason[0].upper()}{reason[1:]}."


def _missing(name: str, names: Iterable[str]) -> str:
    """Why a method is not among the names of tables: it has no results, or two benchmarks use its name."""
    folders = _in_folders(name, names)
    return f"several benchmarks hold {name}, so name {' or '.join(folders)}" if folders else f"no results of {name}"


def _in_folders(name: str, names: Iterable[str]) -> list[str]:
    """The names of a method in a table of several benchmarks that use the same."""
    return sorted(label for label in names if label.endswith(f"/{name}"))


def _seeds(table: "Table", rows: "pd.DataFrame") -> str:
    """The seeds of the methods, each method's own where they differ."""
    methods = dict.fromkeys([*rows["method"], *rows["other"]])
    seeds = {name: sorted(table.rows.loc[table.rows["label"] == name, "seed"]) for name in methods}
    first, *others = seeds.values()
    if all(other == first for other in others):
        return f"{'Seeds' if len(first) > 1 else 'The only seed'}: {_listed(first)}."
    common = sorted(set(first).intersection(*others))
    by_method = "; ".join(f"{name} {_listed(numbers)}" for name, numbers in seeds.items())
    return f"Seeds differ: {by_method}; in common: {_listed(common) or 'none'}. Each method is averaged over its own."


def _listed(seeds: Sequence[int]) -> str:
    return ", ".join(map(str, seeds))
