"""All results for another program, one record a cell, with shares in the unit of the tables: percent."""

import json
from typing import Any

import pandas as pd

from itmbench.report.columns import find
from itmbench.units import is_share

JSON_TEXTS = ("protocol", "budget", "choices")
"""Columns of ``load_results`` that are JSON themselves."""


def csv(frame: pd.DataFrame) -> str:
    """The columns of ``load_results``, a row a cell."""
    return in_percent(frame).rename(columns=_no_formula).map(_no_formula).to_csv(index=False)


def as_json(frame: pd.DataFrame) -> str:
    """The columns of ``load_results``, an object a cell; values that it lacks are null."""
    frame = in_percent(frame)
    cells = frame.astype(object).where(frame.notna(), None).to_dict("records")
    for cell in cells:
        cell |= {name: json.loads(cell[name]) for name in JSON_TEXTS}
    return json.dumps({"unit": "percent", "cells": cells}, indent=2, allow_nan=False) + "\n"


def in_percent(frame: pd.DataFrame) -> pd.DataFrame:
    """The results (``load_results``) with every share in percent, as rSum is, which adds up percentages."""
    quality = {key for key, column in find(map(str, frame)).values() if column.better}
    shares = [key for key in map(str, frame) if ("/" in key or key in quality) and is_share(key)]
    validation = frame["validation"].where(
        frame["objective"].map(lambda name: not is_share(name)), 100 * frame["validation"]
    )
    return frame.assign(**(100 * frame[shares]), validation=validation)


def _no_formula(value: Any) -> Any:
    """A value that no spreadsheet takes for a formula."""
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@")) else value
