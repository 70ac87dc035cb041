"""Queries of a test with their first results, as a run keeps them."""

from dataclasses import dataclass
from typing import Literal

from pydantic import FiniteFloat

Side = Literal["i2t", "t2i"]
SIDES: dict[Side, tuple[Literal["image", "text"], Literal["image", "text"]]] = {
    "i2t": ("image", "text"),
    "t2i": ("text", "image"),
}
"""Modalities of the queries and of the gallery."""
Right = Literal["own", "true", "label", ""]


@dataclass(frozen=True)
class Answer:
    """A result of a query.

    Args:
        id: of the image or text.
        image: id of the image that it is or belongs to.
        text: the text, or the first one of the image; empty for features.
        score: higher is better.
        right: the query's "own" partner, "true" by the complete truth, sharing a "label", or none of these.
        twin: whether ``image`` is a near twin of the query's image.
        labels: names of the labels that it shares with the query.
    """

    id: str
    image: str
    text: str
    score: FiniteFloat
    right: Right
    twin: bool
    labels: list[str]


@dataclass(frozen=True)
class Example:
    """A query and its first results.

    Args:
        side: "i2t" or "t2i".
        id: of the image or text.
        image: id of the image that it is or belongs to.
        text: as that of an `Answer`.
        labels: names of its labels.
        outcome: its rank or AP.
        sampled: whether it was drawn at random; if not, it is one of the worst.
        results: best first; among equal scores the right ones come last, as ties lose.
    """

    side: Side
    id: str
    image: str
    text: str
    labels: list[str]
    outcome: FiniteFloat
    sampled: bool
    results: list[Answer]


@dataclass(frozen=True)
class Examples:
    """The content of ``examples.json``.

    Args:
        measure: what the outcomes are, "rank" or "ap".
        root: folder of the pictures; empty for features.
        files: path below ``root`` and size in bytes of every image named in the queries, by id; none for features.
        queries: of both directions; the sampled ones in the order of the draw, then the worst.
    """

    measure: Literal["rank", "ap"]
    root: str
    files: dict[str, tuple[str, int]]
    queries: list[Example]
