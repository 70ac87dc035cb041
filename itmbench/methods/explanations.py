"""Explanations of a trained method in plain values: what ``itmbench explain`` writes and cells store for the page."""

from dataclasses import dataclass

from pydantic import FiniteFloat

from itmbench.evaluation.answers import Side


def region_name(number: int, grid: int | None) -> str:
    """A region by its place in the grid over the photograph, or by its number if there is no grid, both from 1.

    >>> region_name(5, 4), region_name(5, None)
    ('row 2 column 2', 'region 6')
    """
    return f"row {number // grid + 1} column {number % grid + 1}" if grid else f"region {number + 1}"


@dataclass(frozen=True)
class ExplainedWord:
    """A word of a text that looks for regions of an image."""

    word: str  # as the text encoder spells it; "[mark]" for marks; a number if the token is not a word
    share: FiniteFloat  # how much it counts in the text; the shares of a text sum to 1
    found: FiniteFloat  # how well it finds a region of the image, such as a cosine
    whole: FiniteFloat  # the share of the whole image in what it finds
    regions: list[FiniteFloat]  # the share of each region `[R]`; with ``whole`` they sum to 1


@dataclass(frozen=True)
class ExplainedPair:
    """The score of an image and a text."""

    image: str  # id of the image in the corpus, or its path
    grid: int | None  # rows and columns of the grid of its regions; None if there is none
    text_id: str  # id of the text, or the text itself
    text: str | None  # the text; None for ready-made features
    score: FiniteFloat  # as the method ranks by it
    paths: dict[str, FiniteFloat]  # logit of each path; they sum to the score
    local_scale: FiniteFloat  # the logit of the last path, that of the words, is this times the sum of share x found
    words: list[ExplainedWord]  # in the order of the text

    @property
    def title(self) -> str:
        """The text, as words if it has any."""
        return self.text or self.text_id


@dataclass(frozen=True)
class Seen:
    """A training item that a node attaches to."""

    id: str  # its id in the corpus
    weight: FiniteFloat  # the share of the edge in what the node receives
    text: str | None  # the text, or the text of the same pair; None if there is none
    labels: list[str]  # names of the labels that it votes for


@dataclass(frozen=True)
class Part:
    """A word, or the number of a region, with the attention that a label pays to it."""

    part: str | int
    weight: FiniteFloat


@dataclass(frozen=True)
class ExplainedLabel:
    """A label of an item."""

    label: str  # its name, or its number
    predicted: FiniteFloat  # its probability by the encoder
    received: FiniteFloat  # its probability by the graph
    parts: list[Part]  # words or regions that it attends to most
    regions: list[FiniteFloat]  # the attention to each region of an image `[R]`; empty for a text
    sees: list[Seen]  # training items that its node attaches to, highest weight first


@dataclass(frozen=True)
class ExplainedItem:
    """What an image or a text attaches to."""

    modality: str  # "image" or "text"
    id: str  # its id in the corpus; for the user's own items, a path or the text itself
    text: str | None  # the text, or the image's first text; None if there is none
    grid: int | None  # rows and columns of the grid of its regions; None if there is none
    sees: list[Seen]  # training items of its modality that it attaches to, highest weight first
    labels: list[ExplainedLabel]  # its most probable labels

    @property
    def title(self) -> str:
        """A text as words, if it has any; else the id."""
        return (self.text if self.modality == "text" else None) or self.id

    def looks_at(self, label: ExplainedLabel) -> str:
        """The regions or words that one of the labels attends to, with its attention."""
        names = [region_name(part.part, self.grid) if isinstance(part.part, int) else part.part for part in label.parts]
        parts = ", ".join(f"{name} {part.weight:.2f}" for name, part in zip(names, label.parts, strict=True))
        return f"{'words' if self.modality == 'text' else 'regions'}: {parts or 'none'}"

    @property
    def image(self) -> str | None:
        """The id of an image; None of a text."""
        return self.id if self.modality == "image" else None


@dataclass(frozen=True)
class ExplainedQuery:
    """Why an example query of `itmbench.evaluation.examples` was answered as it was."""

    side: Side  # as that of the example
    id: str  # likewise
    pairs: list[ExplainedPair]  # the query with a right answer, and with the best wrong one if there is one; or none
    items: list[ExplainedItem]  # the query and its first result; or none


@dataclass(frozen=True)
class Explanations:
    """The content of ``explanations.json``."""

    root: str  # folder of the pictures; empty for features
    files: dict[str, tuple[str, int]]  # by id of an image: path below ``root`` and size in bytes; none for features
    queries: list[ExplainedQuery]  # of both directions
