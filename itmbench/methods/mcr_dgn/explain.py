"""What an item attaches to and hears from the bank, in words."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from itmbench.data.corpus import Corpus, Rows
from itmbench.methods.base import Matcher
from itmbench.methods.explained import Items, grid_side, words_of
from itmbench.methods.explanations import ExplainedItem, ExplainedLabel, Part, Seen
from itmbench.methods.mcr_dgn.context import Edges
from itmbench.methods.mcr_dgn.graph import attention


@dataclass(frozen=True)
class Neighbour:
    """A training pair that a node attaches to.

    Args:
        pair: its row in the bank.
        weight: the share of the edge in what the node hears.
    """

    pair: int
    weight: float


@dataclass(frozen=True)
class Label:
    """One label of an item, with its node.

    Args:
        label: its number.
        predicted: its probability by the encoder.
        heard: its probability by the graph.
        parts: attention of the label to the regions or words of the item, float32 `[N]`.
        neighbours: what its node attaches to, highest weight first.
    """

    label: int
    predicted: float
    heard: float
    parts: Tensor
    neighbours: list[Neighbour]


@dataclass(frozen=True)
class Explanation:
    """What a test item attaches to.

    Args:
        neighbours: of the node of the whole item, highest weight first.
        labels: the most probable labels, highest probability at test first.
        words: the tokens of the item in the vocabulary, int64 `[N]`; None if they are no words.
    """

    neighbours: list[Neighbour]
    labels: list[Label]
    words: Tensor | None


def neighbours(edges: Edges | None, row: int) -> list[Neighbour]:
    """What one node attaches to, highest weight first; nothing if nodes of its kind have no edges."""
    if edges is None:
        return []
    shares = attention(edges)[row]
    order = [each for each in shares.argsort(descending=True).tolist() if shares[each] > 0]
    return [Neighbour(int(edges.source[row, each]), float(shares[each])) for each in order]


def in_words(
    explanations: Sequence[Explanation],
    items: Items,
    corpus: Corpus,
    pairs: tuple[Rows, Rows],
    model: Matcher,
    votes: Tensor,
    top: int,
) -> list[ExplainedItem]:
    """Explanations of items with the names of a corpus: ``top`` of everything.

    Args:
        explanations: of each item.
        items: what is explained.
        corpus: that the model was trained on.
        pairs: corpus rows of the images and texts in the bank.
        model: whose encoders read the items.
        votes: labels of the pairs in the bank `[P, C]`.
        top: most neighbours, regions and words.
    """
    names = [*corpus.label_names] or [*map(str, range(votes.shape[1]))]

    def seen(neighbours: Sequence[Neighbour]) -> list[Seen]:
        found = []
        for each in neighbours[:top]:
            image, text = (int(rows[each.pair]) for rows in pairs)
            id_ = corpus.image_ids[image] if items.modality == "image" else corpus.text_ids[text]
            labels = [names[label] for label in votes[each.pair].nonzero().flatten().tolist()]
            found.append(Seen(id_, each.weight, words_of(corpus, text), labels))
        return found

    described = []
    for row, item in enumerate(explanations):
        labels = [
            ExplainedLabel(
                names[each.label],
                each.predicted,
                each.heard,
                _parts(model, each.parts, item.words, top),
                each.parts.tolist() if items.modality == "image" else [],
                seen(each.neighbours),
            )
            for each in item.labels
        ]
        grid = None if items.modality == "text" else grid_side(model, len(item.labels[0].parts))
        sees = seen(item.neighbours)
        described.append(ExplainedItem(items.modality, items.ids[row], items.texts[row], grid, sees, labels))
    return described


def _parts(model: Matcher, weights: Tensor, words: Tensor | None, top: int) -> list[Part]:
    """The regions, by number, or the words with the highest attention of a label; marks are no words."""
    order = [part for part in weights.argsort(descending=True).tolist() if weights[part] > 0]
    names = {part: part if words is None else model.text.word(int(words[part])) for part in order}
    return [Part(name, float(weights[part])) for part in order if (name := names[part]) is not None][:top]
