"""Quantities as text."""


def is_share(name: str) -> bool:
    """Whether a metric is a share from 0 to 1: not one of ranks or counts, nor rSum, which adds up percentages."""
    return not name.endswith(("rSum", "MedR", "MeanR", "queries_without_relevant"))


def metric(name: str, value: float) -> str:
    """A metric as the tables of a report show it: shares in percent, the others as they are.

    >>> [metric(name, 0.5) for name in ("i2t/R@1", "truth/rSum", "t2i/MeanR", "queries_without_relevant")]
    ['50.00 %', '0.50', '0.50', '0']
    """
    if name.endswith("queries_without_relevant"):
        return f"{value:.0f}"
    return f"{100 * value:.2f} %" if is_share(name) else f"{value:.2f}"


def duration(seconds: float) -> str:
    """Seconds as s, min or h.

    >>> [duration(value) for value in (8.25, 82, 150, 850, 11_900)]
    ['8.2 s', '82 s', '2.5 min', '14 min', '3.3 h']
    """
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 600:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def size(number: float) -> str:
    """Bytes as kB, MB or GB.

    >>> [size(value) for value in (999, 207_220, 13_510_573_713)]
    ['999 bytes', '207.2 kB', '13.5 GB']
    """
    for unit, one in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if number >= one:
            return f"{number / one:.1f} {unit}"
    return f"{number:.0f} bytes"
