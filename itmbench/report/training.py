"""Training loss and validation of every epoch of a cell, as its log has them."""

import re
from pathlib import Path
from typing import NamedTuple

from itmbench.runner.running import LOG

EPOCH = re.compile(r" epoch (\d+)/\S+(?: +train/loss (\S+))?(?: +val/objective (\S+))?")
"""A line of `itmbench.runner.callbacks.EpochLines`."""


class Epoch(NamedTuple):
    """An epoch that was validated; NaN where its loss or its objective was not logged."""

    number: int
    loss: float
    objective: float


def read_epochs(folder: str | Path) -> list[Epoch]:
    """The epochs in the log of a cell, in order; of one that a resumed run repeated, the last. None without a log."""
    try:
        text = Path(folder, LOG).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    epochs = {int(number): Epoch(int(number), _value(loss), _value(best)) for number, loss, best in EPOCH.findall(text)}
    return [epochs[number] for number in sorted(epochs)]


def _value(text: str) -> float:
    try:
        return float(text or "nan")
    except ValueError:
        return float("nan")
