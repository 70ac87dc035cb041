"""Explanations of a trained method in plain values: what ``itmbench explain`` writes and cells store for the page."""

from dataclasses import dataclass

from pydantic import FiniteFloat

from itmbench.evaluation.answers import Side


@dataclass(frozen=True)
class ExplainedWord:
    """A word of a text that looks for regions of an image.

    Args:
        word: as the text encoder spells it, "[mark]" for marks such as [CLS]; the number of a token that is not a word.
        share: how much it counts in the text; the shares of a text sum to 1.
        found: how well it finds a region of the image, such as a cosine.
        whole: the share of the whole image in what it finds.
        regions: the share of each region `[R]`; with ``whole`` they sum to 1.
    """

    word: str
    share: FiniteFloat
    found: FiniteFloat
    whole: FiniteFloat
    regions: list[FiniteFloat]


@dataclass(frozen=True)
class ExplainedPair:
    """The score of an image and a text.

    Args:
        image: id of the image in the corpus, or its path.
        grid: rows and columns of the grid of its regions; None if there is none.
        text_id: id of the text, or the text itself.
        text: the text; None for ready-made features.
        score: as the method ranks by it.
        paths: logit of each path; they sum to the score.
        local_scale: of the path of the words, the last one, whose logit is this times the sum of share x found.
        words: in the order of the text.
    """

    image: str
    grid: int | None
    text_id: str
    text: str | None
    score: FiniteFloat
    paths: dict[str, FiniteFloat]
    local_scale: FiniteFloat
    words: list[ExplainedWord]

    @property
    def title(self) -> str:
        """The text, as words if it has any."""
        return self.text or self.text_id


@dataclass(frozen=True)
class Seen:
    """A training item that a node attaches to.

    Args:
        id: its id in the corpus.
        weight: the share of the edge in what the node receives.
        text: the text, or the text of the same pair; None if there is none.
        labels: names of the labels that it votes for.
    """

    id: str
    weight: FiniteFloat
    text: str | None
    labels: list[str]


@dataclass(frozen=True)
class Part:
    """A word, or the number of a region, with the attention that a label pays to it."""

    part: str | int
    weight: FiniteFloat


@dataclass(frozen=True)
class ExplainedLabel:
    """A label of an item.

    Args:
        label: its name, or its number.
        predicted: its probability by the encoder.
        received: its probability by the graph.
        parts: words or regions that it attends to most.
        regions: the attention to each region of an image `[R]`; empty for a text.
        sees: training items that its node attaches to, highest weight first.
    """

    label: str
    predicted: FiniteFloat
    received: FiniteFloat
    parts: list[Part]
    regions: list[FiniteFloat]
    sees: list[Seen]


@dataclass(frozen=True)
class ExplainedItem:
    """What an image or a text attaches to.

    Args:
        modality: "image" or "text".
        id: its id in the corpus; for the user's own items, a path or the text itself.
        text: the text, or the image's first text; None if there is none.
        grid: rows and columns of the grid of its regions; None if there is none.
        sees: training items of its modality that it attaches to, highest weight first.
        labels: its most probable labels.
    """

    modality: str
    id: str
    text: str | None
    grid: int | None
    sees: list[Seen]
    labels: list[ExplainedLabel]

    @property
    def title(self) -> str:
        """A text as words, if it has any; else the id."""
        return (self.text if self.modality == "text" else None) or self.id

    @property
    def image(self) -> str | None:
        """The id of an image; None of a text."""
        return self.id if self.modality == "image" else None


@dataclass(frozen=True)
class ExplainedQuery:
    """Why an example query of `itmbench.evaluation.examples` was answered as it was.

    Args:
        side: as that of the example.
        id: likewise.
        pairs: the query with a right answer, and with the wrong one of highest score if there is one; or none.
        items: the query and its first result; or none.
    """

    side: Side
    id: str
    pairs: list[ExplainedPair]
    items: list[ExplainedItem]


@dataclass(frozen=True)
class Explanations:
    """The content of ``explanations.json``.

    Args:
        root: folder of the pictures; empty for features.
        files: path below ``root`` and size in bytes of every image named in the queries, by id; none for features.
        queries: of both directions.
    """

    root: str
    files: dict[str, tuple[str, int]]
    queries: list[ExplainedQuery]
