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
    """A result of a query."""

    id: str  # of the image or text
    image: str  # id of the image that it is or belongs to
    text: str  # the text, or the first one of the image; empty for features
    score: FiniteFloat  # higher is better
    right: Right  # the query's "own" partner, "true" by the complete truth, sharing a "label", or none of these
    twin: bool  # whether ``image`` is a near twin of the query's image
    labels: list[str]  # names of the labels that it shares with the query


@dataclass(frozen=True)
class Example:
    """A query and its first results."""

    side: Side  # "i2t" or "t2i"
    id: str  # of the image or text
    image: str  # id of the image that it is or belongs to
    text: str  # as that of an `Answer`
    labels: list[str]  # names of its labels
    outcome: FiniteFloat  # its rank or AP
    sampled: bool  # whether it was drawn at random; if not, it is one of the worst
    results: list[Answer]  # best first; among equal scores the right ones come last, as ties lose


@dataclass(frozen=True)
class Examples:
    """The content of ``examples.json``."""

    measure: Literal["rank", "ap"]  # what the outcomes are, "rank" or "ap"
    root: str  # folder of the pictures; empty for features
    files: dict[str, tuple[str, int]]  # by id of an image: path below ``root`` and size in bytes; none for features
    queries: list[Example]  # of both directions; the sampled ones in the order of the draw, then the worst
