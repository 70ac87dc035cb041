"""The option ``--only``: cells chosen by benchmark, dataset, method and seed."""

from collections.abc import Sequence
from typing import Any, TypeVar

from itmbench.errors import InputError, choice

KEYS = ("benchmark", "dataset", "method", "seed")

Item = TypeVar("Item")


def select(items: Sequence[Item], only: str) -> list[Item]:
    """Items with the attributes ``KEYS`` that match every comma-separated pair, such as ``method=scan,seed=0``.

    Raises:
        InputError: a key is unknown, no item has the value, or no item matches all pairs.

    >>> from types import SimpleNamespace as Cell
    >>> cells = [Cell(benchmark="mini", dataset="d", method="scan", seed=seed) for seed in (0, 1)]
    >>> [cell.seed for cell in select(cells, "method=scan,seed=1")]
    [1]
    """
    selected = list(items)
    for pair in filter(None, only.split(",")):
        key, _, value = pair.partition("=")
        if key not in KEYS:
            raise InputError(f"--only {pair}: {key} is not one of {', '.join(KEYS)}; write method=scan,seed=0")
        known = dict.fromkeys(_value(item, key) for item in items)
        if value not in known:
            raise InputError(f"--only {pair}: no such {key}; {choice(value, known) if known else 'there are no cells'}")
        selected = [item for item in selected if _value(item, key) == value]
    if only and not selected:
        raise InputError(f"--only {only}: no cell matches all of these")
    return selected


def _value(item: Any, key: str) -> str:
    return str(getattr(item, key))
