"""Files of a cell beside its result: outcomes of queries, examples, explanations, epochs."""

import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import pandas as pd
from pandas.api.types import infer_dtype
from pydantic import TypeAdapter, ValidationError

from itmbench.errors import InputError, in_a_line
from itmbench.evaluation.answers import Examples
from itmbench.evaluation.paired import QueryTable
from itmbench.methods.explanations import Explanations
from itmbench.store import EXAMPLES, EXPLANATIONS, LOG, PER_QUERY

Content = TypeVar("Content")

EPOCH = re.compile(r" epoch (\d+)/\S+(?: +train/loss (\S+))?(?: +val/\S+ (\S+)( %)?)?")
"""A line of `itmbench.runner.callbacks.EpochLines`; older ones name no metric and give shares from 0 to 1."""


class Epoch(NamedTuple):
    """An epoch that was validated; NaN where its loss or its objective was not logged."""

    number: int
    loss: float
    objective: float


def read_queries(folder: str | Path) -> QueryTable:
    """Read ``per_query.parquet`` of a cell.

    Raises:
        InputError: there is no such file, it cannot be read, or an old itmbench wrote it without image ids.
    """
    path = Path(folder, PER_QUERY)
    if not path.exists():
        raise InputError(f"{path}: no such file; run that cell again")
    try:
        frame = pd.read_parquet(path)
    except Exception as error:  # pyarrow raises many kinds
        raise InputError(f"{path}: cannot be read ({in_a_line(error)[:100]}); run that cell again") from None
    if frame.empty or not {"direction", "query", "image"} <= {*frame}:
        raise InputError(f"{path}: has no image ids; run that cell again, an old itmbench wrote it")
    for name in ("direction", "query", "image", "group"):
        if name in frame and (frame[name].isna().any() or infer_dtype(frame[name]) not in ("string", "integer")):
            raise InputError(f"{path}: {name} holds other things than names; run that cell again")
    outcomes = [(name, least, most) for name, least, most in (("rank", 1, 1e15), ("ap", 0, 1 + 1e-9)) if name in frame]
    if not outcomes or not frame["direction"].isin(("i2t", "t2i", "hard")).all():
        raise InputError(f"{path}: holds no outcomes of queries; run that cell again")
    for name, least, most in outcomes:
        if frame[name].dtype.kind not in "iuf" or not frame[name].fillna(-1).between(least, most).all():
            raise InputError(f"{path}: {name} holds other things than {name}s; run that cell again")
    return {str(name): column.to_numpy() for name, column in frame.items()}


def read_examples(folder: str | Path) -> Examples | None:
    """Read ``examples.json`` of a cell; None if it has none: an older one, or one evaluated with a shortlist.

    Raises:
        InputError: the file cannot be read, or a field in it is missing or of the wrong type.
    """
    return _read(Path(folder, EXAMPLES), Examples, "example queries")


def read_explanations(folder: str | Path) -> Explanations | None:
    """Read ``explanations.json`` of a cell; None if there is none, an InputError if it is damaged."""
    return _read(Path(folder, EXPLANATIONS), Explanations, "explanations")


def _read(path: Path, kind: type[Content], what: str) -> Content | None:
    if not path.exists():
        return None
    try:
        content: Content = _adapter(kind).validate_json(path.read_bytes(), strict=True)
        return content
    except (ValidationError, OSError) as error:
        reason = error.strerror if isinstance(error, OSError) else in_a_line(error)
        raise InputError(f"{path}: no {what} ({reason}); remove the file or run that cell again") from None


_adapter: Callable[[Any], TypeAdapter[Any]] = cache(TypeAdapter)


def read_epochs(folder: str | Path) -> list[Epoch]:
    """The epochs in the log of a cell, in order; of one that a resumed run repeated, the last. None without a log."""
    try:
        text = Path(folder, LOG).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    epochs = {
        int(number): Epoch(int(number), _value(loss), _value(best) / (100 if percent else 1))
        for number, loss, best, percent in EPOCH.findall(text)
    }
    return [epochs[number] for number in sorted(epochs)]


def _value(text: str) -> float:
    try:
        return float(text or "nan")
    except ValueError:
        return float("nan")
