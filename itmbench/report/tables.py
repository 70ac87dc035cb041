"""Results -> tables, one for each set of rows that may be ranked together."""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table as RichTable

from itmbench.errors import InputError
from itmbench.evaluation.paired import PairedResults, parts
from itmbench.report.columns import Column, find
from itmbench.report.published import Published, published
from itmbench.report.queries import read_queries
from itmbench.report.words import MARK, audit_in_words, mixed_in_words

GROUP = ("dataset", "protocol", "fingerprint", "pretraining", "inductive")
"""Rows that differ in one of these are never ranked together."""
PRETRAINING = {
    "scratch": "trained from scratch",
    "unimodal": "encoders pre-trained on images or on text",
    "image-text": "pre-trained on image-text pairs",
}
SCREEN = 120
GAP = 2
"""Blanks between columns."""
LEGEND = (
    "mean ± standard deviation over the seeds; {mark}: not significantly worse than the best of its column, by the "
    "luck of the images and of several seeds (paired permutation test with Holm's correction, and paired bootstrap; "
    "5 %); no mark where values per query are not kept"
)
"""What stands below tables; ``mark`` is how a format shows the mark."""


@dataclass(frozen=True)
class Table:
    """Methods that may be compared, best first.

    Args:
        dataset: its name in the benchmark.
        pretraining: class of what the encoders had seen before.
        inductive: every test item was encoded alone; if not, the rows are a diagnostic and are not ranked.
        ranked: methods that may be ranked: none if not inductive, and none that failed the audit or mixes recipes.
        title: dataset, protocol, what the encoders had seen before, and what a random order scores.
        reason: why these rows are not in another table of the same dataset; empty if it has only this one.
        warning: which methods failed the leak audit, whose seeds differ in more than the seed, and why none could be
            marked, to stand below the table; empty if all is well.
        protocol: what measured them.
        objective: name, in the results, of the metric that orders them.
        cells: what to print, a row a method.
        best: which cells are not significantly worse than the best of their column; shaped as ``cells``.
        columns: heading -> what the column shows.
        rows: the results behind it, a row a cell of the benchmark, with the method's name here as ``label``.
        published: what others published on the same data, to stand below the last table of a dataset.
    """

    dataset: str
    pretraining: str
    inductive: bool
    ranked: list[str]
    title: str
    reason: str
    warning: str
    protocol: dict[str, Any]
    objective: str
    cells: pd.DataFrame
    best: pd.DataFrame
    columns: dict[str, Column]
    rows: pd.DataFrame
    published: tuple[Published, ...] = ()

    @property
    def main_columns(self) -> list[str]:
        """Headings of the columns that every format shows."""
        return ["seeds", *(heading for heading, column in self.columns.items() if not column.detail)]

    @property
    def quality_columns(self) -> list[str]:
        """Headings of the number of seeds and the main metrics."""
        return [heading for heading in self.main_columns if heading not in self.cost_columns]

    @property
    def detail_columns(self) -> list[str]:
        """Headings of the other metrics."""
        return [heading for heading, column in self.columns.items() if column.better and column.detail]

    @property
    def cost_columns(self) -> list[str]:
        """Headings of what a run costs."""
        return [heading for heading, column in self.columns.items() if not column.better]

    def _repr_html_(self) -> str:
        """What a notebook shows: the main columns, those not significantly worse than the best in bold."""
        legend = LEGEND.format(mark="bold")
        caption = ". ".join(filter(None, (f"<b>{self.title}</b>", self.reason, self.warning, legend)))
        cells, best = self.cells[self.main_columns], self.best[self.main_columns]
        styled = cells.style.apply(lambda _: np.where(best, "font-weight: bold", ""), axis=None)
        return styled.set_caption(caption).to_html()


def tables(frame: pd.DataFrame, mark: bool = True) -> list[Table]:
    """Tables of the results, dataset by dataset.

    Args:
        frame: what ``load_results`` gives, or a part of it.
        mark: test which methods are not significantly worse than the best, which reads the results of all queries.
    """
    if frame.empty:
        return []
    found = []
    for _, dataset in frame.groupby("dataset", sort=False):
        groups = [(dict(zip(GROUP, key, strict=True)), rows) for key, rows in dataset.groupby(list(GROUP), sort=False)]
        *others, last = [_table(own, rows, [of for of, _ in groups], mark) for own, rows in groups]
        figures = published(dataset["data"].unique(), last.protocol["name"])
        found += [*others, replace(last, published=tuple(figures))]
    return found


def print_tables(frame: pd.DataFrame, file: TextIO | None = None) -> None:
    """Print the tables, wrapped by columns to the width of the screen; plain text where the output is not a screen.

    Args:
        frame: what ``load_results`` gives, or a part of it.
        file: where to; the standard output by default.
    """
    console = Console(file=file, highlight=False, markup=False, emoji=False)
    width = console.width if console.is_terminal else SCREEN
    for table in tables(frame):
        console.print(table.title, style="bold", soft_wrap=True)
        if table.reason:
            console.print(table.reason, soft_wrap=True)
        for part, needed in _parts(table, width):
            # Rich shortens what does not fit, and a number must never be shortened.
            console.width = max(width, needed)
            console.print(part)
            console.print()
        if table.warning:
            console.print(f"{table.warning}\n", soft_wrap=True)
        for figures in table.published:
            columns = [[heading, *figures.cells[heading]] for heading in figures.cells]
            columns.insert(0, ["method", *figures.cells.index])
            console.print(figures.title, style="bold", soft_wrap=True)
            console.width = max(width, _width(columns))
            console.print(_grid(columns))
            console.print()
    console.width = width
    console.print(LEGEND.format(mark="*"))


def _table(own: dict[str, Any], rows: pd.DataFrame, siblings: list[dict[str, Any]], mark: bool) -> Table:
    protocol = json.loads(own["protocol"])
    objective = protocol["objective"]
    rows = rows.assign(label=_labels(rows))
    failed = _failed(rows)
    rows["label"] += rows["label"].map(lambda label: f" {MARK}" if label in failed else "")
    columns = find(str(key) for key in rows if rows[key].notna().any())
    methods = rows.groupby("label")
    numbers = methods[[key for key, _ in columns.values()]]
    means = numbers.mean().sort_values(objective, ascending=False, kind="stable")
    deviations = numbers.std().loc[means.index]
    cells = pd.DataFrame({"seeds": methods.size().astype(str)}, index=means.index.rename("method"))
    for heading, (key, column) in columns.items():
        cells[heading] = [_cell(column, mean, std) for mean, std in zip(means[key], deviations[key], strict=True)]
    best, untested = pd.DataFrame(False, index=cells.index, columns=cells.columns), ""
    # A method that failed the audit is no yardstick.
    mixed = _mixed(rows)
    ranked = [name for name in cells.index if own["inductive"] and not name.endswith(MARK) and name not in mixed]
    try:
        if mark:
            _mark(best, columns, rows, ranked)
    except InputError as error:
        untested = f"No marks: {error}."
    return Table(
        dataset=own["dataset"],
        pretraining=own["pretraining"],
        inductive=bool(own["inductive"]),
        ranked=ranked,
        title=f"{own['dataset']}: {protocol['name']}, version {protocol['version']}; {PRETRAINING[own['pretraining']]}"
        + _chance(rows, objective, columns),
        reason=_reason(own, siblings),
        warning=" ".join(filter(None, (audit_in_words(failed), mixed_in_words(mixed), untested))),
        protocol=protocol,
        objective=objective,
        cells=cells,
        best=best,
        columns={heading: column for heading, (_, column) in columns.items()},
        rows=rows.sort_values("label", key=lambda labels: labels.map(means.index.get_loc), kind="stable"),
    )


def _chance(rows: pd.DataFrame, objective: str, columns: dict[str, tuple[str, Column]]) -> str:
    """What a random order scores, where the results hold it."""
    key = f"chance/{objective}"
    shown = [column.show(rows[key].mean()) for name, column in columns.values() if name == objective and key in rows]
    return f"; a random order has {objective} {shown[0]}" if shown else ""


def _labels(rows: pd.DataFrame) -> pd.Series:
    """The method of each row; with its folder where two benchmarks have one of that name."""
    folders = rows["folder"].map(lambda folder: str(Path(folder).parent))
    clash = folders.groupby(rows["method"]).transform("nunique") > 1
    if not clash.any():
        return rows["method"]
    common = os.path.commonpath(folders.unique())
    return rows["method"].where(~clash, folders.map(lambda folder: Path(folder).relative_to(common).as_posix()))


def _failed(rows: pd.DataFrame) -> dict[str, list[str]]:
    """Label of each method that failed checks of the leak audit, with any seed -> their names."""
    joined = rows[rows["audit_failed"] != ""].groupby("label")["audit_failed"]
    return {str(label): sorted({name for names in checks for name in names.split(", ")}) for label, checks in joined}


def _mixed(rows: pd.DataFrame) -> list[str]:
    """Labels of methods whose seeds were not all run with the same options, data and code."""
    kinds = rows[rows["recipe"] != ""].groupby("label")["recipe"].nunique()
    return [str(label) for label in kinds.index[kinds > 1]]


def _cell(column: Column, mean: float, std: float) -> str:
    if np.isnan(mean):
        return "–"
    return column.show(mean) if np.isnan(std) or not column.better else f"{column.show(mean)} ± {column.show(std)}"


def _mark(best: pd.DataFrame, columns: dict[str, tuple[str, Column]], rows: pd.DataFrame, methods: list[str]) -> None:
    """Set the cells of those methods that are not significantly worse than the best of them.

    Raises:
        InputError: the queries of a result cannot be compared with those of the others.
    """
    tested = {heading: key for heading, (key, _) in columns.items() if parts(key)}
    if len(methods) < 2 or not tested:
        return
    queries = {name: [*map(read_queries, rows.loc[rows["label"] == name, "folder"])] for name in methods}
    results = PairedResults(queries, list(tested.values()))
    for heading, key in tested.items():
        best.loc[results.leaders(key, methods), heading] = True


def _reason(own: dict[str, Any], siblings: list[dict[str, Any]]) -> str:
    """What sets these rows apart from the other tables of the same dataset, in one line."""

    def differ(values: list[Any]) -> bool:
        return any(value != values[0] for value in values)

    protocols = [json.loads(of["protocol"]) for of in siblings]
    mine = json.loads(own["protocol"])
    fields = sorted({key for of in protocols for key in of})
    here = [f"protocol {key} = {mine.get(key, 'none')}" for key in fields if differ([of.get(key) for of in protocols])]
    here += [f"{key} = {own[key]}" for key in ("fingerprint", "pretraining") if differ([of[key] for of in siblings])]
    apart = f"Not ranked with the other tables of {own['dataset']}: here {', '.join(here)}." if here else ""
    together = "" if own["inductive"] else "Test items were encoded together (transductive): a diagnostic, not ranked."
    return " ".join(filter(None, (apart, together)))


def _parts(table: Table, width: int) -> Iterator[tuple[RichTable, int]]:
    """The main columns in as many tables as the width asks for, each with the methods' names, and the width of each.

    Costs stay together.
    """
    columns = {heading: [heading, *column] for heading, column in _starred(table).items()}
    costs = [heading for heading in table.main_columns if heading in table.cost_columns]
    blocks = [*([heading] for heading in table.quality_columns), costs]
    names = ["method", *map(str, table.cells.index)]
    lines: list[list[list[str]]] = []
    for block in blocks:
        wanted = [columns[heading] for heading in block]
        if not lines or _width([names, *lines[-1], *wanted]) > width:
            lines.append([])
        lines[-1] += wanted
    for line in lines:
        yield _grid([names, *line]), _width([names, *line])


def _grid(columns: list[list[str]]) -> RichTable:
    """Columns, each with its heading first, for the screen."""
    grid = RichTable(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, GAP - 1, 0, 0))
    for place, column in enumerate(columns):
        grid.add_column(column[0], justify="right" if place else "left", no_wrap=True)
    for row in zip(*(column[1:] for column in columns), strict=True):
        grid.add_row(*row)
    return grid


def _width(columns: list[list[str]]) -> int:
    return sum(max(map(len, column)) + GAP for column in columns)


def _starred(table: Table) -> dict[str, list[str]]:
    """The main columns as text, with a star behind what is marked and a blank behind the others."""
    return {
        heading: [
            text + ("*" if best else " " if table.best[heading].any() else "")
            for text, best in zip(table.cells[heading], table.best[heading], strict=True)
        ]
        for heading in table.main_columns
    }
