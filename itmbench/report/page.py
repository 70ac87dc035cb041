"""The results as one self-contained page."""

import io
import os
import re
from collections.abc import Callable, Hashable, Mapping
from datetime import datetime
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from itmbench.report.columns import find
from itmbench.report.files import write_text
from itmbench.report.plots import cost_plot, seeds_plot
from itmbench.report.tables import LEGEND, Table, tables
from itmbench.report.words import in_words
from itmbench.store import CONFIG, RESULT, Result

INK = "#010203"
"""A colour that no plot uses: text and axes of a plot, which take the colour of the page's text."""
STYLE: Any = {
    **dict.fromkeys(
        ("text.color", "xtick.color", "ytick.color", "axes.labelcolor", "axes.edgecolor", "grid.color"), INK
    ),
    "font.size": 10,
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "itmbench",  # same results, same bytes
}


def write_html(frame: pd.DataFrame, path: str | Path) -> Path:
    """Write the page; it needs no network and no other file, and links to the cells' files relative to itself.

    Args:
        frame: what ``load_results`` gives, or a part of it.
        path: the file.

    Returns:
        The file.

    Raises:
        InputError: it cannot be written there, or a cell's ``result.json`` is gone.
    """
    return write_text(path, page(frame, Path(path).parent))


def page(frame: pd.DataFrame, folder: Path) -> str:
    """The page as text, with links relative to the folder that it will lie in."""
    results = {name: Result.load(Path(name)) for name in frame["folder"]}
    jinja = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    template = jinja.from_string(files("itmbench.report").joinpath("page.html").read_text(encoding="utf-8"))
    return template.render(
        benchmarks=sorted(frame["benchmark"].unique()),
        frame=frame,
        finished=_time(max(result.finished for result in results.values())),
        legend=LEGEND.format(mark="bold"),
        sections=[_section(table, results, folder) for table in tables(frame)],
        environment=_distinct([{"commit": _commit(r), **r.versions, **r.hardware} for r in results.values()]),
    )


def _section(table: Table, results: Mapping[str, Result], folder: Path) -> dict[str, Any]:
    data = results[table.rows["folder"].iloc[0]].data
    return {
        "table": table,
        "words": in_words(table.protocol, bool(table.rows["inductive"].all())),
        "fields": {key: value for key, value in table.protocol.items() if key not in ("name", "version")},
        "data": data,
        "differs": any(count["published"] not in (None, count["found"]) for count in data["counts"]),
        "plots": [
            (f"{table.objective}: a point a seed, a line at their mean", _svg(seeds_plot, table)),
            *(
                (f"{table.objective} against {what}; dotted: the efficient ones", _svg(draw, table))
                for what, draw in _cost_plots(table)
            ),
        ],
        "runs": [_run(row, results[row["folder"]], table.objective, folder) for row in table.rows.to_dict("records")],
    }


def _cost_plots(table: Table) -> list[tuple[str, Callable[[Axes, Table], None]]]:
    """What training costs, and what asking costs where that was measured."""
    costs = {"seconds": "the time of a run", "scored_pairs_per_second": "pairs scored a second"}
    return [
        (what, partial(cost_plot, cost=cost))
        for cost, what in costs.items()
        if cost in table.rows and table.rows[cost].notna().any()
    ]


def _run(row: dict[Hashable, Any], result: Result, objective: str, folder: Path) -> dict[str, Any]:
    _, column = next(iter(find([objective]).values()))
    return {
        "method": row["label"],
        "seed": result.seed,
        "objective": column.show(result.metrics[objective]),
        "validation": column.show(result.validation),
        "epochs": result.epochs,
        "finished": _time(result.finished),
        "config": _link(Path(row["folder"], CONFIG), folder),
        "json": _link(Path(row["folder"], RESULT), folder),
    }


def _link(path: Path, folder: Path) -> str:
    return Path(os.path.relpath(path, folder)).as_posix()


def _time(iso: str) -> str:
    return f"{datetime.fromisoformat(iso):%Y-%m-%d %H:%M} UTC"


def _commit(result: Result) -> str:
    if result.git is None:
        return "installed package"
    return result.git["commit"][:12] + (" with changes" if result.git["dirty"] else "")


def _distinct(facts: list[dict[str, Any]]) -> dict[str, list[str]]:
    """Every fact with the different values it has over the cells."""
    names = dict.fromkeys(name for fact in facts for name in fact)
    values = {name: [str(fact[name]) for fact in facts if fact.get(name) is not None] for name in names}
    return {name: list(dict.fromkeys(found)) for name, found in values.items() if found}


def _svg(draw: Callable[[Axes, Table], None], table: Table) -> str:
    """A plot as an ``svg`` element; its text is text, and takes font and colour from the page."""
    text = io.StringIO()
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(5, max(2.6, 0.8 + 0.35 * len(table.cells))), layout="constrained")
        draw(figure.subplots(), table)
        no_metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(text, format="svg", transparent=True, metadata=no_metadata)
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :].replace(INK, "currentColor")
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)  # every plot of the page would repeat them
    svg = re.sub(r"font-family: [^;]*; ", "", svg)
    box = re.search(r'viewBox="[^"]*"', svg)
    return re.sub(r"<svg[^>]*>", f'<svg {box[0] if box else ""} aria-hidden="true">', svg, count=1)
