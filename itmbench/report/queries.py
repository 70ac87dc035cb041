"""The outcome of every query of a cell, as the results store keeps it."""

from pathlib import Path

import pandas as pd
from pandas.api.types import is_numeric_dtype

from itmbench.errors import InputError
from itmbench.evaluation.paired import QueryTable
from itmbench.store import PER_QUERY


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
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}); run that cell again") from None
    if frame.empty or not {"direction", "query", "image"} <= {*frame}:
        raise InputError(f"{path}: has no image ids; run that cell again, an old itmbench wrote it")
    if not all(is_numeric_dtype(frame[name]) for name in ("rank", "ap") if name in frame):
        raise InputError(f"{path}: ranks that are not numbers; run that cell again")
    return {str(name): column.to_numpy() for name, column in frame.items()}
