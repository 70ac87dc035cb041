"""Explanations of a few example queries of a cell, made while its model is in memory."""

import logging
from collections.abc import Sequence
from typing import Any

import torch

from itmbench.data.corpus import Corpus, ImageFiles
from itmbench.errors import InputError
from itmbench.evaluation.answers import SIDES, Example, Side
from itmbench.files import real_path
from itmbench.methods.base import Matcher
from itmbench.methods.explained import ExplainsItems, ExplainsPairs, corpus_items, explain_pairs, image_rows
from itmbench.methods.explanations import ExplainedItem, ExplainedPair, ExplainedQuery, Explanations

logger = logging.getLogger(__name__)

Rows = dict[str, dict[str, int]]
"""Corpus rows by modality and id."""
QUERIES, SEEN = 3, 3
"""Queries of each direction; training items, regions and words that are kept of each node."""


@torch.no_grad()
def explanations(model: Matcher, corpus: Corpus, examples: Sequence[Example]) -> Explanations | None:
    """Why some of the sampled queries were answered as they were; None if the method has nothing to show."""
    if not isinstance(model, ExplainsPairs | ExplainsItems):
        return None
    rows: Rows = {
        "image": {id_: row for row, id_ in enumerate(corpus.image_ids)},
        "text": {id_: row for row, id_ in enumerate(corpus.text_ids)},
    }
    queries = [query for side in ("i2t", "t2i") for query in _chosen(examples, side)]
    model.eval()
    try:
        explained = [
            ExplainedQuery(
                query.side,
                query.id,
                _pairs(model, corpus, rows, query) if isinstance(model, ExplainsPairs) else [],
                _items(model, corpus, rows, query) if isinstance(model, ExplainsItems) else [],
            )
            for query in queries
        ]
    except InputError as error:  # such as a control without a graph
        logger.info("    no explanations: %s", error)
        return None
    except Exception as error:  # a user's hook must not lose the result of a long training
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
    return Explanations(str(real_path(images.root)), files, explained)


def _chosen(examples: Sequence[Example], side: Side) -> list[Example]:
    """The first sampled query whose first result is right, and the first ones whose is not; others if there are few."""
    drawn = [query for query in examples if query.side == side and query.sampled and query.results]
    right = [query for query in drawn if query.results[0].right]
    wrong = [query for query in drawn if not query.results[0].right]
    return [*right[:1], *wrong, *right[1:]][:QUERIES]


def _pairs(model: Matcher, corpus: Corpus, rows: Rows, query: Example) -> list[ExplainedPair]:
    """The query with its best right answer, and with its best wrong one."""
    mine, other = SIDES[query.side]
    row = rows[mine][query.id]
    partners = corpus.texts_of_image[row].tolist() if mine == "image" else [int(corpus.text_to_image[row])]
    right = [rows[other][result.id] for result in query.results if result.right][:1] or partners
    wrong = [rows[other][result.id] for result in query.results if not result.right][:1]
    pairs = [(row, answer) if mine == "image" else (answer, row) for answer in (*right, *wrong)]
    images, texts = zip(*pairs, strict=True)
    explained = explain_pairs(
        model, corpus_items(model, corpus, "image", images), corpus_items(model, corpus, "text", texts)
    )
    best = max(explained[: len(right)], key=lambda pair: pair.score)
    return [best, *explained[len(right) :]]


def _items(model: ExplainsItems, corpus: Corpus, rows: Rows, query: Example) -> list[ExplainedItem]:
    """The query and its first result; an InputError if there is nothing to show, or the graph does not rank."""
    if not model.graph_at_test:
        raise InputError("the model is tested without its graph")
    mine, other = SIDES[query.side]
    found = list[ExplainedItem]()
    for modality, id_ in ((mine, query.id), (other, query.results[0].id)):
        items = corpus_items(model, corpus, modality, [rows[modality][id_]])  # type: ignore[arg-type]
        found += model.explain_items(corpus, items, SEEN)
    return found


def rounded(value: Any, digits: int = 4) -> Any:
    """A value of JSON with numbers of a few digits, fewer in lists, which are regions."""
    if isinstance(value, dict):
        return {key: rounded(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(part, 3) for part in value]
    return round(value, digits) if isinstance(value, float) else value
