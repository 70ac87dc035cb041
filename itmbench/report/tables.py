"""Results -> tables, one for each set of rows that may be ranked together."""

import html
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pandas.io.formats.style import Styler

from itmbench.errors import InputError
from itmbench.report.columns import Column, find
from itmbench.report.marks import compare
from itmbench.report.published import Published, published
from itmbench.report.words import MARK, audit_in_words, budget_in_words, mixed_in_words, notes, trials_in_words
from itmbench.store import load_results

GROUP = ("dataset", "protocol", "fingerprint", "pretraining", "inductive", "budget")
"""Rows that differ in one of these are never ranked together; rows without training have the budget of any table."""
UNTRAINED = "{}"
"""Budget of a method that no optimizer step trains."""
PRETRAINING = {
    "scratch": "trained from scratch",
    "unimodal": "encoders pre-trained on images or on text",
    "captions": "text encoder pre-trained on texts that include captions of photographs",
    "image-text": "pre-trained on image-text pairs",
}
SPREAD = "Values are means ± standard deviations over seeds."
MARKED = (
    "{mark}: no other method is better at 5 %, over all methods and columns of the table together, images and seeds "
    "resampled. Not marked: columns whose outcomes per query are not stored, those in which no method beats random "
    "chance, and methods of fewer than three seeds."
)
"""``mark`` is how a format shows the mark."""
CHOICES = "chosen on validation"
"""Heading of what a method chose on the validation split beside its checkpoint."""


@dataclass(frozen=True)
class Table:
    """Methods that may be compared, best first."""

    dataset: str  # its name in the benchmark
    pretraining: str  # pre-training class of the encoders
    inductive: bool  # every test item was encoded alone; if not, the rows are a diagnostic and are not ranked
    ranked: list[str]  # methods that may be ranked: none if transductive, none that failed the audit or mixes recipes
    title: str  # dataset, protocol, pre-training and the score of random chance
    reason: str  # why these rows are apart from the other tables of the dataset; empty if it has only this one
    warning: str  # below the table: failed audits, seeds that are too few or mix recipes, missing outcomes of queries
    protocol: dict[str, Any]  # what measured them
    objective: str  # name of the metric that orders them
    cells: pd.DataFrame  # formatted values `[methods, columns]`
    best: pd.DataFrame  # cells that no other is significantly better than; shaped as ``cells``
    differences: pd.DataFrame  # all pairs of methods, as `itmbench.report.marks.Compared` holds them
    columns: dict[str, Column]  # heading -> its column
    rows: pd.DataFrame  # the results, one a cell of the benchmark, with the method's name in this table as ``label``
    published: tuple[Published, ...] = ()  # on the same data; shown below the last table of a dataset and protocol

    @property
    def main_columns(self) -> list[str]:
        """Headings that every format shows."""
        shown = [heading for heading, column in self.columns.items() if not column.detail]
        return ["seeds", *shown, *([CHOICES] if CHOICES in self.cells else [])]

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
        """Headings of costs."""
        return [heading for heading, column in self.columns.items() if not column.better]

    def styled(self, escape: Callable[[Any], str], columns: list[str] | None = None) -> Styler:
        """Some columns, by default the main ones, with marked cells in bold; ``escape`` is applied to every text."""
        columns = self.main_columns if columns is None else columns
        best, style = self.best[columns], escaped(self.cells[columns], escape)
        return style.apply(lambda _: np.where(best, "font-weight: bold", ""), axis=None)

    def _repr_html_(self) -> str:
        """The main columns for a notebook."""
        texts = map(html.escape, (self.reason, self.warning, legend([self], "Bold")))
        caption = " ".join(filter(None, (f"<b>{html.escape(self.title)}</b>", *texts)))
        return self.styled(html.escape).set_caption(caption).to_html()


def escaped(cells: pd.DataFrame, escape: Callable[[Any], str]) -> Styler:
    """A table of texts, with "method" above the row names, whose every text goes through ``escape``."""
    style = cells.rename_axis(index=None, columns="method").style.format(escape)
    return style.format_index(escape, axis="index").format_index(escape, axis="columns")


def legend(tables: Sequence[Table], mark: str) -> str:
    """What the values, the marks and the main columns of some tables mean, each said once; nothing that they lack."""
    sentences = [SPREAD] if any("±" in table.cells.to_string() for table in tables) else []
    sentences += [MARKED.format(mark=mark)] if any(table.best.to_numpy().any() for table in tables) else []
    by_kind: dict[str, dict[str, None]] = {}
    for table in tables:
        of_kind = by_kind.setdefault("Captions" if table.objective == "rSum" else "Labels", {})
        of_kind |= dict.fromkeys(notes(table.protocol, table.main_columns))
    for kind, of_kind in by_kind.items():  # R@K of captions is another than that of labels
        sentences += [f"{kind}: " * (len(by_kind) > 1) + " ".join(of_kind)]
    return " ".join(sentences)


def load(results: str | Path) -> pd.DataFrame:
    """All results below a folder, one row a cell, as ``itmbench.load_results``; an InputError if there are none."""
    frame = load_results(results)
    if frame.empty:
        raise InputError(f"{results}: no results yet; run a benchmark first, or name another folder with --results")
    return frame


def tables(frame: pd.DataFrame) -> list[Table]:
    """Tables of the results (``load_results``), dataset by dataset, with all differences tested.

    This reads the outcome of every query, so a command calls it once.
    """
    if frame.empty:
        return []
    known = frame["training"] != ""  # older results do not say what was trained
    frame = frame.assign(steps=frame["steps"].where(known), budget=frame["budget"].where(known, ""))
    of_method = frame["folder"].map(lambda folder: str(Path(folder).parent))  # a check that one seed fails, all fail
    frame["inductive"] = frame["inductive"].groupby(of_method).transform("all")
    result = []
    for _, dataset in frame.groupby("dataset", sort=False):
        groups = _groups(dataset)
        made = [_table(group, rows, [other for other, _ in groups]) for group, rows in groups]
        last = {table.protocol["name"]: table for table in made}
        for table in made:
            protocol = table.protocol["name"]
            figures = published(dataset["data"].unique(), protocol) if table is last[protocol] else []
            result.append(replace(table, published=tuple(figures)))
    return result


def _groups(dataset: pd.DataFrame) -> list[tuple[dict[str, Any], pd.DataFrame]]:
    """The rows of a dataset that may be ranked together; rows without training join each of their budgets."""
    trained = dataset[dataset["budget"] != UNTRAINED]
    apart = list(GROUP[:-1])
    budgets = trained[[*GROUP]].drop_duplicates()
    joined = dataset[dataset["budget"] == UNTRAINED].drop(columns="budget").merge(budgets, how="left", on=apart)
    rows = pd.concat([trained, joined.fillna({"budget": UNTRAINED})])
    return [(dict(zip(GROUP, key, strict=True)), part) for key, part in rows.groupby(list(GROUP), sort=False)]


def _table(group: dict[str, Any], rows: pd.DataFrame, groups: list[dict[str, Any]]) -> Table:
    """The table of one group of rows; ``groups`` are all of the dataset."""
    protocol = json.loads(group["protocol"])
    objective = protocol["objective"]
    rows = rows.assign(label=_labels(rows))
    failed = _failed(rows)
    rows["label"] += rows["label"].map(lambda label: f" {MARK}" if label in failed else "")
    columns = find(str(key) for key in rows if rows[key].notna().any() and (key != "trials" or rows[key].any()))
    methods, keys = rows.groupby("label"), [key for key, _ in columns.values()]
    of_all_seeds = methods[keys].transform("count").eq(methods["label"].transform("size"), axis=0)
    shown_rows = rows.assign(**rows[keys].where(of_all_seeds))  # or the mean would be that of the other seeds
    numbers = shown_rows.groupby("label")[keys]
    means = numbers.mean().sort_values(objective, ascending=False, kind="stable")
    deviations = numbers.std().loc[means.index]
    cells = pd.DataFrame({"seeds": methods.size().astype(str)}, index=means.index.rename("method"))
    for heading, (key, column) in columns.items():
        cells[heading] = [_cell(column, mean, std) for mean, std in zip(means[key], deviations[key], strict=True)]
    choices = methods["choices"].agg(_choices) if "choices" in rows else pd.Series()
    if choices.any():
        cells[CHOICES] = choices.replace("", "–")
    mixed = _mixed(rows)
    ranked = [name for name in cells.index if group["inductive"] and not name.endswith(MARK) and name not in mixed]
    trials = {str(label): numbers.tolist() for label, numbers in methods["trials"]}
    metrics = {heading: key for heading, (key, column) in columns.items() if column.better and not column.detail}
    compared = [name for name in cells.index if group["inductive"] and name not in mixed]
    tested = compare(rows, compared, ranked, metrics, lambda metric: _chance(rows, metric))
    best = pd.DataFrame(False, index=cells.index, columns=cells.columns)
    for heading, names in tested.leaders.items():
        best.loc[names, heading] = True
    shown = next(column.show for key, column in columns.values() if key == objective)
    title = (
        f"{group['dataset']}: {protocol['name']}, version {protocol['version']}; {PRETRAINING[group['pretraining']]}"
    )
    if f"chance/{objective}" in rows:
        title += f"; random chance: {objective} {shown(_chance(rows, objective))}"
    return Table(
        dataset=group["dataset"],
        pretraining=group["pretraining"],
        inductive=bool(group["inductive"]),
        ranked=ranked,
        title=title,
        reason=_reason(group, groups),
        warning=" ".join(
            filter(None, (audit_in_words(failed), mixed_in_words(mixed), trials_in_words(trials), tested.warning))
        ),
        protocol=protocol,
        objective=objective,
        cells=cells,
        best=best,
        differences=tested.differences,
        columns={heading: column for heading, (_, column) in columns.items()},
        rows=shown_rows.sort_values("label", key=lambda labels: labels.map(means.index.get_loc), kind="stable"),
    )


def _chance(rows: pd.DataFrame, metric: str) -> float:
    """Expected score of random chance; NaN where unknown."""
    if metric == "hard_negative_accuracy":
        return 0.5
    return float(rows[f"chance/{metric}"].mean()) if f"chance/{metric}" in rows else np.nan


def _labels(rows: pd.DataFrame) -> pd.Series:
    """The method of each row, or its folder where two benchmarks use the same name."""
    folders = rows["folder"].map(lambda folder: str(Path(folder).parent))
    clash = folders.groupby(rows["method"]).transform("nunique") > 1
    if not clash.any():
        return rows["method"]
    common = os.path.commonpath(folders.unique())
    return rows["method"].where(~clash, folders.map(lambda folder: Path(folder).relative_to(common).as_posix()))


def _failed(rows: pd.DataFrame) -> dict[str, list[str]]:
    """Label of each method that failed the leak audit with any seed -> names of the failed checks."""
    joined = rows[rows["audit_failed"] != ""].groupby("label")["audit_failed"]
    return {str(label): sorted({name for names in checks for name in names.split(", ")}) for label, checks in joined}


def _mixed(rows: pd.DataFrame) -> list[str]:
    """Labels of methods whose seeds ran with different options, data or code."""
    recipes = rows[rows["recipe"] != ""].groupby("label")["recipe"].nunique()
    return [str(label) for label in recipes.index[recipes > 1]]


def _choices(rows: pd.Series) -> str:
    """What the seeds of a method chose, in their order; once if they agree."""
    seeds = [json.loads(text) for text in rows.dropna()]
    names = dict.fromkeys(name for choices in seeds for name in choices)
    values = {name: [_value(choices.get(name)) for choices in seeds] for name in names}
    return ", ".join(f"{name} {'/'.join(dict.fromkeys(v) if len({*v}) == 1 else v)}" for name, v in values.items())


def _value(choice: Any) -> str:
    if isinstance(choice, bool):
        return "yes" if choice else "no"
    return f"{choice:g}" if isinstance(choice, int | float) else "–" if choice is None else str(choice)


def _cell(column: Column, mean: float, std: float) -> str:
    if np.isnan(mean):
        return "–"
    return column.show(mean) if np.isnan(std) or not column.better else f"{column.show(mean)} ± {column.show(std)}"


def _reason(group: dict[str, Any], groups: list[dict[str, Any]]) -> str:
    """How these rows differ from the other tables of the dataset, in one line."""

    def differ(values: list[Any]) -> bool:
        return any(value != values[0] for value in values)

    protocols = [json.loads(other["protocol"]) for other in groups]
    protocol = json.loads(group["protocol"])
    fields = sorted({key for other in protocols for key in other})
    here = [
        f"protocol {key} = {protocol.get(key, 'none')}" for key in fields if differ([p.get(key) for p in protocols])
    ]
    here += [f"{key} = {group[key]}" for key in ("fingerprint", "pretraining") if differ([g[key] for g in groups])]
    here += [budget_in_words(group["budget"])] if differ([g["budget"] for g in groups]) else []
    apart = f"Not ranked with the other tables of {group['dataset']}: here {', '.join(here)}." if here else ""
    together = (
        "" if group["inductive"] else "Test items were encoded together (transductive): a diagnostic, not ranked."
    )
    return " ".join(filter(None, (apart, together)))
