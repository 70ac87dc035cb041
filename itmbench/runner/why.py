"""Explanations of a few example queries of a cell, made while its model is there."""

import logging
from collections.abc import Sequence
from typing import Any

import torch

from itmbench.data.corpus import Corpus, ImageFiles
from itmbench.errors import InputError
from itmbench.evaluation.examples import Example, Side
from itmbench.methods.base import Matcher
from itmbench.methods.explained import ExplainsItems, ExplainsPairs, corpus_items, explain_pairs, image_rows
from itmbench.methods.explanations import ExplainedItem, ExplainedPair, ExplainedQuery, Explanations
from itmbench.methods.mcr_dgn.module import MCRDGN

logger = logging.getLogger(__name__)

QUERIES, SEEN = 3, 3
"""Queries of each direction; training items, regions and words that are kept of each node."""


@torch.no_grad()
def explanations(model: Matcher, corpus: Corpus, examples: Sequence[Example]) -> Explanations | None:
    """Why some of the sampled queries were answered as they were; None if the method has nothing to show."""
    if not isinstance(model, ExplainsPairs | ExplainsItems):
        return None
    rows = _Rows(corpus)
    queries = [query for side in ("i2t", "t2i") for query in _chosen(examples, side)]
    model.eval()
    try:
        explained = [
            ExplainedQuery(
                query.side,
                query.id,
                _pairs(model, rows, query) if isinstance(model, ExplainsPairs) else [],
                _items(model, rows, query) if isinstance(model, ExplainsItems) else [],
            )
            for query in queries
        ]
    except InputError as error:  # such as a control without a graph
        logger.info("    no explanations: %s", error)
        return None
    except Exception as error:  # a hook of one's own; the result of a long training is not lost to it
        logger.warning("    no explanations: %s: %s", type(error).__name__, error)
        return None
    images = corpus.images
    if not isinstance(images, ImageFiles):
        return Explanations("", {}, explained)
    everything: list[ExplainedPair | ExplainedItem] = []
    for query in explained:
        everything += [*query.pairs, *query.items]
    named = image_rows(corpus, everything)
    files = {id_: (images.names[row], int(images.sizes[row])) for id_, row in sorted(named.items())}
    return Explanations(str(images.root.resolve()), files, explained)


class _Rows:
    """Corpus rows by id."""

    def __init__(self, corpus: Corpus) -> None:
        self.corpus = corpus
        self.of: dict[Any, dict[str, int]] = {
            "image": {id_: row for row, id_ in enumerate(corpus.image_ids)},
            "text": {id_: row for row, id_ in enumerate(corpus.text_ids)},
        }


def _chosen(examples: Sequence[Example], side: Side) -> list[Example]:
    """The first sampled query whose first result is right, and the first ones whose is not; others if there are few."""
    drawn = [query for query in examples if query.side == side and query.sampled and query.results]
    right = [query for query in drawn if query.results[0].right]
    wrong = [query for query in drawn if not query.results[0].right]
    return [*right[:1], *wrong, *right[1:]][:QUERIES]


def _pairs(model: Matcher, rows: _Rows, query: Example) -> list[ExplainedPair]:
    """The query with its best right answer, and with its best wrong one."""
    corpus, mine, other = rows.corpus, *(("image", "text") if query.side == "i2t" else ("text", "image"))
    row = rows.of[mine][query.id]
    own = corpus.texts_of_image[row].tolist() if mine == "image" else [int(corpus.text_to_image[row])]
    right = [rows.of[other][result.id] for result in query.results if result.right][:1] or own
    wrong = [rows.of[other][result.id] for result in query.results if not result.right][:1]
    pairs = [(row, answer) if mine == "image" else (answer, row) for answer in (*right, *wrong)]
    images, texts = zip(*pairs, strict=True)
    explained = explain_pairs(
        model, corpus_items(model, corpus, "image", images), corpus_items(model, corpus, "text", texts)
    )
    best = max(explained[: len(right)], key=lambda pair: pair.score)
    return [best, *explained[len(right) :]]


def _items(model: ExplainsItems, rows: _Rows, query: Example) -> list[ExplainedItem]:
    """The query and its first result.

    Raises:
        InputError: there is nothing to show, or the ranking does not use the graph.
    """
    if isinstance(model, MCRDGN) and not model.graph_at_test:
        raise InputError("the model is tested without its graph")
    mine, other = ("image", "text") if query.side == "i2t" else ("text", "image")
    found = list[ExplainedItem]()
    for modality, id_ in ((mine, query.id), (other, query.results[0].id)):
        items = corpus_items(model, rows.corpus, modality, [rows.of[modality][id_]])  # type: ignore[arg-type]
        found += model.explain_items(rows.corpus, items, SEEN)
    return found


def rounded(value: Any, digits: int = 4) -> Any:
    """A value of JSON with numbers of a few digits, fewer in lists, which are regions."""
    if isinstance(value, dict):
        return {key: rounded(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(part, 3) for part in value]
    return round(value, digits) if isinstance(value, float) else value
