"""The first results of a few queries, of all methods of a table, as the page's script reads them."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from itmbench.errors import InputError
from itmbench.evaluation.answers import Example, Examples
from itmbench.report.cells import read_examples, read_queries
from itmbench.report.tables import Table
from itmbench.report.thumbnails import Thumbnails
from itmbench.store import EXAMPLES, PER_QUERY

logger = logging.getLogger(__name__)

Key = tuple[str, str]
"""Side and id of a query."""


def gallery(table: Table, thumbnails: Thumbnails) -> dict[str, Any] | None:
    """The example queries of a table, those drawn at random first; None if no cell has stored any.

    Of each method, the first seed that has examples is shown; those of another run are left out, with a warning. A
    query that is only one of the worst of another method has an outcome, but no results.

    Raises:
        InputError: the examples of a cell are damaged.
    """
    stored = {}
    for label, seed, folder in table.rows.sort_values("seed", kind="stable")[["label", "seed", "folder"]].to_numpy():
        if label not in stored and (found := read_examples(folder)) is not None:
            try:
                stored[label] = (int(seed), _outcomes(folder, found), found)
            except InputError as error:
                logger.warning("%s", error)
    stored = {str(label): stored[label] for label in table.cells.index if label in stored}
    if not stored:
        return None
    files = {
        image: (shown.root, *file) for _, _, shown in reversed(stored.values()) for image, file in shown.files.items()
    }
    numbers = {image: thumbnails.number(*file) for image, file in sorted(files.items())}
    pictures = {image: number for image, number in numbers.items() if number is not None}
    sampled, worst = dict[Key, Example](), dict[Key, Example]()
    for _, _, shown in stored.values():
        for query in shown.queries:
            (sampled if query.sampled else worst).setdefault((query.side, query.id), query)
    queries = {**sampled, **{key: query for key, query in worst.items() if key not in sampled}}
    answers = [_answers(outcomes, shown, queries) for _, outcomes, shown in stored.values()]
    return {
        "measure": next(iter(stored.values()))[2].measure,
        "methods": [{"name": label, "seed": seed} for label, (seed, _, _) in stored.items()],
        "pictures": pictures,
        "queries": [
            {
                "side": query.side,
                "id": query.id,
                "image": query.image,
                "text": query.text,
                "labels": query.labels,
                "sampled": key in sampled,
                "answers": [of_method.get(key) for of_method in answers],
            }
            for key, query in queries.items()
        ],
        "note": _note(table, stored, files, pictures),
    }


def _outcomes(folder: str, shown: Examples) -> dict[Key, float]:
    """The outcome of every query of a cell; if these cannot be read, of its examples alone.

    Raises:
        InputError: the examples are not of these outcomes.
    """
    outcomes: dict[Key, float] = {(query.side, query.id): query.outcome for query in shown.queries}
    try:
        stored = read_queries(folder)
        columns = (stored["direction"], stored["query"], stored[shown.measure].tolist())
    except (InputError, KeyError):
        return outcomes
    of_all = {(side, id_): outcome for side, id_, outcome in zip(*columns, strict=True)}
    wrong = next((key for key in outcomes if outcomes[key] != of_all.get(key)), None)
    if wrong is not None:
        there = f"has {of_all[wrong]:g}" if wrong in of_all else "lacks the query"
        raise InputError(
            f"{Path(folder, EXAMPLES)}: {shown.measure} {outcomes[wrong]:g} of {wrong[1]}, but {PER_QUERY} {there}; "
            "not shown, so remove the file or run that cell again"
        )
    return of_all


def _answers(
    outcomes: Mapping[Key, float], shown: Examples, queries: Mapping[Key, Example]
) -> dict[Key, dict[str, Any]]:
    """What a method did for each of the queries: the outcome, and the results if they are stored."""
    results: dict[Key, Any] = {
        (query.side, query.id): [vars(result) for result in query.results] for query in shown.queries
    }
    return {key: {"outcome": outcomes[key], "results": results.get(key)} for key in queries if key in outcomes}


def _note(table: Table, stored: Mapping[str, Any], files: Mapping[str, Any], pictures: Mapping[str, int]) -> str:
    """What is missing, in words."""
    without = [str(label) for label in table.cells.index if label not in stored]
    notes = [f"There are no examples of {', '.join(without)}."] if without else []
    if not files:
        notes.append("The dataset has features in place of pictures.")
    elif len(pictures) < len(files):
        notes.append(f"{len(files) - len(pictures):,} of {len(files):,} pictures cannot be shown here.")
    return " ".join(notes)
