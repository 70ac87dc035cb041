"""Why methods answered queries as they did, as the page's script reads it, and as a page of its own."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from itmbench.evaluation.answers import SIDES, Answer, Example
from itmbench.methods.explanations import ExplainedItem, ExplainedPair, ExplainedQuery
from itmbench.report.cells import read_examples, read_explanations
from itmbench.report.tables import Table
from itmbench.report.templates import template
from itmbench.report.thumbnails import Thumbnails

LARGE = 352
"""Longest side in pixels of a picture whose regions are shown."""
File = tuple[str, str, int]
"""Root, path below it and size in bytes of a picture."""


def why(table: Table, thumbnails: Thumbnails) -> dict[str, Any] | None:
    """The explained queries of the methods of a table, of the first seed that has some; None if none has.

    Raises:
        InputError: the explanations or the examples of a cell are damaged.
    """
    methods, files, large = list[dict[str, Any]](), dict[str, File](), set[str]()
    rows = table.rows.sort_values("seed", kind="stable")
    for label in table.cells.index:
        for seed, folder in rows.loc[rows["label"] == label, ["seed", "folder"]].to_numpy():
            explained, shown = read_explanations(folder), read_examples(folder)
            if explained is None or shown is None:
                continue
            examples = {(query.side, query.id): query for query in shown.queries}
            queries = [
                _query(query, examples[query.side, query.id], shown.measure)
                for query in explained.queries
                if (query.side, query.id) in examples
            ]
            methods.append({"name": str(label), "seed": int(seed), "queries": queries})
            files = {id_: (explained.root, *file) for id_, file in explained.files.items()} | files
            for query in explained.queries:
                large |= _large([*query.pairs, *query.items])
            break
    return {"methods": methods, **_pictures(files, large, thumbnails)} if methods else None


def why_page(method: str, explained: Sequence[ExplainedPair | ExplainedItem], files: Mapping[str, Path]) -> str:
    """A page that needs nothing else: explanations of one method, with the photographs by the id of the image."""
    thumbnails = Thumbnails()
    queries = [
        {"title": item.title, "image": item.image, "note": "", "good": False, "panels": [_panel(item, "", False)]}
        for item in explained
    ]
    found = {id_: (str(path.parent), path.name, path.stat().st_size) for id_, path in files.items()}
    methods = [{"name": method, "seed": None, "queries": queries}]
    content = {"methods": methods, **_pictures(found, _large(explained), thumbnails)}
    return template("why_page.html").render(method=method, content=content, pictures=thumbnails.uris)


def _query(query: ExplainedQuery, example: Example, measure: str) -> dict[str, Any]:
    """A query with a panel for each explanation."""
    answers = {answer.id: answer for answer in example.results}
    mine, other = SIDES[query.side]
    panels = []
    for pair in query.pairs:
        answer = answers.get(pair.text_id if query.side == "i2t" else pair.image)
        panels.append(_panel(pair, *_answered(answer, other, [*answers], measure)))
    for number, item in enumerate(query.items):
        heading = f"{'Its first result' if number else 'The query'}, {'an' if item.modality == 'image' else 'a'}"
        labels = example.results[0].labels if number else example.labels
        panels.append(_panel(item, f"{heading} {item.modality}", True, labels))
    outcome = f"own at rank {example.outcome:,.0f}" if measure == "rank" else f"AP {100 * example.outcome:.1f}"
    return {
        "title": example.text or example.id,
        "image": example.image if mine == "image" else None,
        "note": f"{mine} → {other}, {outcome}",
        "good": bool(example.results) and bool(example.results[0].right),
        "panels": panels,
    }


def _answered(answer: Answer | None, other: str, ranking: Sequence[str], measure: str) -> tuple[str, bool]:
    """What an answer to a query is, and whether it is right; one that is not among the first is the query's own."""
    if answer is None and measure == "ap":  # with labels, the gallery rarely holds it
        return f"Its own {other}; none of the first {len(ranking)} is relevant", True
    if answer is None:
        return f"Its own {other}, not among the first {len(ranking)}", True
    place = f"rank {ranking.index(answer.id) + 1}"
    if not answer.right:
        return f"The wrong {other} of highest score, {place}{', a near twin' if answer.twin else ''}", False
    what = {"own": "Its own", "true": "Another true", "label": "A relevant"}[answer.right]
    return f"{what} {other}, {place}", True


def _panel(
    explained: ExplainedPair | ExplainedItem, heading: str, right: bool, labels: Sequence[str] = ()
) -> dict[str, Any]:
    panel: dict[str, Any] = {"heading": heading, "right": right, "labels": [*labels]}
    if isinstance(explained, ExplainedPair):  # JSON within a page has its keys sorted
        return panel | {"pair": asdict(explained) | {"paths": [*explained.paths.items()]}}
    return panel | {"item": asdict(explained)}


def _large(explained: Sequence[ExplainedPair | ExplainedItem]) -> set[str]:
    return {item.image for item in explained if item.image is not None}


def _pictures(files: Mapping[str, File], large: set[str], thumbnails: Thumbnails) -> dict[str, dict[str, int]]:
    """Places of pictures in a page's list, by id: small ones of all, large ones where regions are shown."""
    small = {id_: thumbnails.number(*file) for id_, file in sorted(files.items())}
    big = {id_: thumbnails.number(*file, LARGE) for id_, file in sorted(files.items()) if id_ in large}
    found = {"pictures": small, "large": big}
    return {name: {id_: at for id_, at in places.items() if at is not None} for name, places in found.items()}
