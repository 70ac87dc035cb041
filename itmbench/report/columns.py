"""Which values of a result the tables show, under which heading and in which unit."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from itmbench.units import duration


def percent(value: float) -> str:
    """A fraction as percent."""
    return f"{100 * value:z.1f}"


def amount(value: float) -> str:
    """A large number with three digits and k, M, G or T.

    >>> [amount(value) for value in (0, 950, 86_567_656, 17_600_000_000)]
    ['0', '950', '86.6 M', '17.6 G']
    """
    for factor, prefix in ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value >= factor:
            return f"{value / factor:.3g}{prefix}" if value < 999.5 * factor else f"{value / factor:.0f}{prefix}"
    return f"{value:.3g}" if value < 999.5 else f"{value:.0f}"


@dataclass(frozen=True)
class Column:
    """A kind of column."""

    pattern: str  # regular expression that the names of its metrics match
    heading: str  # heading above it; ``\1`` is the first group of the pattern
    show: Callable[[float], str]  # formats a value
    better: int = 0  # 1 if more is better, -1 if less is; 0 for costs, which have no standard deviation and no marks
    detail: bool = False  # shown on the page only, where there is room
    beside: str = ""  # a metric without which this column is not used; empty for none


tenths = "{:z.1f}".format
COLUMNS = (
    Column(r"(i2t|t2i)/R@(1|5|10)", r"\1 R@\2", percent, better=1, beside="rSum"),  # of captions; of labels a detail
    Column(r"rSum", "rSum", tenths, better=1),
    Column(r"(i2t|t2i)/mAP", r"\1 mAP", percent, better=1),
    Column(r"mAP", "mAP", percent, better=1),
    Column(r"unseen/mAP", "mAP (unseen)", percent, better=1),
    Column(r"(i2t|t2i)/(mAP@\d{4,})", r"\1 \2", percent, better=1),  # as published: at 1,000 or 5,000
    Column(r"(i2t|t2i)/([PR]@50)", r"\1 \2", percent, better=1),
    Column(r"hard_negative_accuracy", "near-twin acc.", percent, better=1),
    Column(r"folds/rSum", "rSum (folds)", tenths, better=1),
    Column(r"truth/rSum", "rSum (complete truth)", tenths, better=1),
    Column(r"truth/mAP@R", "mAP@R (complete truth)", percent, better=1),
    Column(r"probe/word_order", "word-order probe", percent, better=1, detail=True),
    Column(r"probe/(noun|attribute)s", r"\1 probe", percent, better=1, detail=True),
    Column(r"truth/(R-Precision)", r"\1 (complete truth)", percent, better=1, detail=True),
    Column(r"truth/(i2t|t2i)/(R@\d+|mAP@R|R-Precision)", r"\1 \2 (complete truth)", percent, better=1, detail=True),
    Column(r"folds/(i2t|t2i)/(R@\d+)", r"\1 \2 (folds)", percent, better=1, detail=True),
    Column(r"unseen/(i2t|t2i)/mAP", r"\1 mAP (unseen)", percent, better=1, detail=True),
    Column(r"optimistic/mAP", "mAP (ties won)", percent, better=1, detail=True),
    Column(r"(i2t|t2i)/([PR])@h2", r"\1 \2 within Hamming 2", percent, better=1, detail=True),
    Column(r"(i2t|t2i)/((mAP|P|R|NDCG)@\d+)", r"\1 \2", percent, better=1, detail=True),
    Column(r"(i2t|t2i)/P@r(\d\.\d)", r"\1 P at recall \2", percent, better=1, detail=True),
    Column(r"(i2t|t2i)/MedR", r"\1 median rank", tenths, better=-1, detail=True),
    Column(r"(i2t|t2i)/MeanR", r"\1 mean rank", tenths, better=-1, detail=True),
    Column(r"steps", "steps", "{:,.0f}".format),
    Column(r"trials", "trials", "{:,.0f}".format),
    Column(r"parameters", "parameters", amount),
    Column(r"train_pairs_per_second", "pairs trained/s", amount),
    Column(r"images_per_second", "images encoded/s", amount),
    Column(r"scored_pairs_per_second", "pairs scored/s", amount),
    Column(r"peak_memory", "peak memory", lambda value: f"{value / 1e9:.2f} GB"),
    Column(r"seconds", "wall time", duration),
    Column(r"trained_parameters", "trained parameters", amount, detail=True),
    Column(r"image_flops", "FLOPs/image", amount, detail=True),
    Column(r"text_flops", "FLOPs/text", amount, detail=True),
    Column(r"pair_flops", "FLOPs/pair", amount, detail=True),
    Column(r"texts_per_second", "texts encoded/s", amount, detail=True),
    Column(r"epochs", "epochs", "{:,.0f}".format, detail=True),
)


def find(metrics: Iterable[str]) -> dict[str, tuple[str, Column]]:
    """Heading -> metric and its column, in the order of ``COLUMNS``; metrics without a column are left out.

    >>> list(find(["seconds", "i2t/R@5", "folder", "rSum", "i2t/R@1"]))
    ['i2t R@5', 'i2t R@1', 'rSum', 'wall time']
    """
    columns: dict[str, tuple[str, Column]] = {}
    remaining = list(metrics)
    for column in COLUMNS:
        if column.beside and column.beside not in remaining:
            continue
        matches = [match for key in remaining if (match := re.fullmatch(column.pattern, key))]
        columns |= {match.expand(column.heading): (match.string, column) for match in matches}
        remaining = [key for key in remaining if key not in {match.string for match in matches}]
    return columns
