"""The option ``--only``: cells chosen by benchmark, dataset, method and seed."""

from collections.abc import Sequence
from typing import Any, TypeVar

from itmbench.errors import InputError, choice

KEYS = ("benchmark", "dataset", "method", "seed")

Item = TypeVar("Item")


def select(items: Sequence[Item], only: str) -> list[Item]:
    """Items with the attributes ``KEYS`` that comma-separated pairs name, such as ``method=scan,seed=0``.

    Pairs with the same key mean either value. An item must match every key that is given.

    Raises:
        InputError: a key is missing or unknown, no item has the value, or no item matches every key.

    >>> from types import SimpleNamespace as Cell
    >>> cells = [Cell(benchmark="mini", dataset="d", method="scan", seed=seed) for seed in (0, 1, 2)]
    >>> [cell.seed for cell in select(cells, "method=scan,seed=1,seed=2")]
    [1, 2]
    """
    if not isinstance(only, str):
        raise InputError(f"only {only!r}: is not text; write method=scan,seed=0")
    wanted: dict[str, list[str]] = {}
    pairs = [pair for pair in only.split(",") if pair]
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals and (keys := [key for key in KEYS if pair in _values(items, key)]):
            written = ",".join(f"{keys[0]}={other}" if other == pair else other for other in pairs)
            raise InputError(f"--only {only}: {pair} is not KEY=NAME; write {written}")
        if key not in KEYS:
            raise InputError(f"--only {pair}: {key} is not one of {', '.join(KEYS)}; write method=scan,seed=0")
        known = _values(items, key)
        if value not in known:
            raise InputError(f"--only {pair}: no such {key}; {choice(value, known) if known else 'there are no cells'}")
        wanted.setdefault(key, []).append(value)
    selected = [item for item in items if all(str(getattr(item, key)) in wanted[key] for key in wanted)]
    if only and not selected:
        raise InputError(f"--only {only}: no cell matches all of these")
    return selected


def _values(items: Sequence[Any], key: str) -> dict[str, None]:
    return dict.fromkeys(str(getattr(item, key)) for item in items)
