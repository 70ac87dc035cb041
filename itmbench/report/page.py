"""The results as one self-contained page."""

import html
import io
import os
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from itmbench.report.cells import read_epochs
from itmbench.report.charts import Line, against_best, bars, mark, sort_keys
from itmbench.report.gallery import gallery
from itmbench.report.plots import Looks, cost_plot, curve_plot, curves, epochs_plot, looks, seeds_plot
from itmbench.report.tables import Table, legend
from itmbench.report.templates import template
from itmbench.report.thumbnails import Thumbnails
from itmbench.report.why import why
from itmbench.report.words import AUDIT, in_words, lead_in_words, without_mark
from itmbench.store import CONFIG, Result

COSTS = {"seconds": "wall time", "scored_pairs_per_second": "pairs scored per second"}
INK = "#010203"
"""Placeholder for the page's text colour in plots; no plot uses it otherwise."""
STYLE: Any = {
    **dict.fromkeys(
        ("text.color", "xtick.color", "ytick.color", "axes.labelcolor", "axes.edgecolor", "grid.color"), INK
    ),
    "font.size": 10,
    "text.parse_math": False,  # a method may be named $x^$
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "itmbench",  # same results, same bytes
}


def page(tables: Sequence[Table], folder: Path) -> str:
    """At least one table as HTML, which needs no network and links to the cells' files.

    Links are relative to the folder that the page will be written to.

    Raises:
        InputError: a cell's ``result.json`` is gone, or its ``examples.json`` or ``explanations.json`` is damaged.
    """
    results = {name: Result.load(Path(name)) for table in tables for name in table.rows["folder"]}
    filled = template(
        "page.html",
        time=_time,
        link=lambda path: quote(Path(os.path.relpath(path, folder)).as_posix()),  # so "javascript:" is not a scheme
        config=_config,
        number=_number,
    )
    same_looks = looks(tables)
    labels = {label: same_looks[without_mark(label)] for table in tables for label in table.cells.index}
    thumbnails = Thumbnails()
    sections = [_section(table, same_looks, results, thumbnails) for table in tables]
    for section, name in zip(sections, _names(tables), strict=True):
        section["name"] = name
    return filled.render(
        marks={label: mark(*look) for label, look in labels.items()},
        colours={label: colour for label, (colour, _) in labels.items()},
        checks=AUDIT,
        benchmarks=sorted({result.benchmark for result in results.values()}),
        methods=len(same_looks),
        datasets=len({result.dataset for result in results.values()}),
        cells=len(results),
        finished=max(result.finished for result in results.values()),
        legend=legend(tables, "Bold"),
        sections=sections,
        pictures=thumbnails.uris if any(section["gallery"] or section["why"] for section in sections) else None,
        environment=_distinct([{"commit": _commit(r), **r.versions, **r.hardware} for r in results.values()]),
    )


def _section(table: Table, looks: Looks, results: Mapping[str, Result], thumbnails: Thumbnails) -> dict[str, Any]:
    data = results[table.rows["folder"].iloc[0]].data
    caption = f"{table.objective} of every seed, and their mean"
    plots = [(caption, _svg(caption, seeds_plot, table, looks))]
    for cost, what in COSTS.items():
        if cost in table.rows and table.rows[cost].notna().any():
            caption = f"{table.objective} against {what}"
            plots.append((caption, _svg(caption, partial(cost_plot, cost=cost), table, looks)))
    best, lines = against_best(table)
    return {
        "table": table,
        "subtitle": table.title.removeprefix(f"{table.dataset}: "),
        "lead": f"{table.objective} {table.cells.at[best, table.objective]!s}" if best else "",
        "verdict": lead_in_words({line.method: _verdict(line) for line in lines}, bool(best)),
        "sort_keys": sort_keys(table),
        "bars": bars(table),
        "best": best,
        "lines": lines,
        "words": in_words(table.protocol, bool(table.rows["inductive"].all())),
        "fields": {key: value for key, value in table.protocol.items() if key not in ("name", "version")},
        "data": data,
        "differs": any(count["published"] not in (None, count["found"]) for count in data["counts"]),
        "plots": plots,
        "curves": [
            (caption, _svg(caption, partial(curve_plot, metrics=metrics), table, looks))
            for caption, metrics in curves(table).items()
        ],
        "training": _training(table, looks),
        "gallery": gallery(table, thumbnails),
        "why": why(table, thumbnails),
        "runs": [(label, results[cell], Path(cell)) for label, cell in table.rows[["label", "folder"]].to_numpy()],
        "show": table.columns[table.objective].show,
    }


def _verdict(line: Line) -> str:
    """How a method stands against the best; "level" if no difference is shown, so that the first in order is not it."""
    return "level" if line.difference == "+0.0" and line.verdict != "worse" else line.verdict


def _training(table: Table, looks: Looks) -> list[tuple[str, str]]:
    """Captions and plots of the epochs; none if no run has validated twice."""
    if max(len(read_epochs(folder)) for folder in table.rows["folder"]) < 2:
        return []
    captions = {"loss": "training loss", "objective": f"{table.objective} on validation"}
    return [
        (caption, _svg(caption, partial(epochs_plot, what=what), table, looks)) for what, caption in captions.items()
    ]


def _names(tables: Sequence[Table]) -> list[str]:
    """The dataset of each table, numbered where it has several."""
    datasets = [table.dataset for table in tables]
    return [
        f"{name}, table {datasets[:at].count(name) + 1}" if datasets.count(name) > 1 else name
        for at, name in enumerate(datasets)
    ]


def _time(iso: str) -> str:
    return f"{datetime.fromisoformat(iso):%Y-%m-%d %H:%M} UTC"


def _config(cell: Path) -> str:
    path = cell / CONFIG
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else "The file is gone."


def _number(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, int | float) else "–" if value is None else str(value)


def _commit(result: Result) -> str:
    if result.git is None:
        return "installed package"
    return result.git["commit"][:12] + (" with changes" if result.git["dirty"] else "")


def _distinct(facts: list[dict[str, Any]]) -> dict[str, list[str]]:
    """Every fact with its distinct values over the cells."""
    names = dict.fromkeys(name for fact in facts for name in fact)
    values = {name: [str(fact[name]) for fact in facts if fact.get(name) is not None] for name in names}
    return {name: list(dict.fromkeys(distinct)) for name, distinct in values.items() if distinct}


def _svg(label: str, draw: Callable[[Axes, Table, Looks], None], table: Table, looks: Looks) -> str:
    """A plot as an ``svg`` element with a text alternative; its text stays text, with font and colour of the page."""
    text = io.StringIO()
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(4.6, max(2.8, 0.8 + 0.32 * len(table.cells))), layout="constrained")
        draw(figure.subplots(), table, looks)
        no_metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(text, format="svg", transparent=True, metadata=no_metadata)
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :].replace(INK, "currentColor")
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)  # every plot would repeat them
    svg = re.sub(r"font-family: [^;]*; ", "", svg)
    box = re.search(r'viewBox="[^"]*"', svg)
    return re.sub(
        r"<svg[^>]*>", f'<svg {box[0] if box else ""} role="img" aria-label="{html.escape(label)}">', svg, count=1
    )
