"""The first results of a few queries of a test, to look at."""

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from itmbench.data.corpus import Corpus, ImageFiles, Rows, Strings
from itmbench.encoders.embeddings import Embeddings, Items
from itmbench.evaluation.answers import Answer, Example, Examples, Side
from itmbench.evaluation.evaluation import Evaluation
from itmbench.evaluation.scoring import Scorer, comparable, distinct, score
from itmbench.evaluation.stage import EvaluatedStage
from itmbench.files import real_path

SAMPLE, WORST, TOP = 32, 8, 5
"""For each direction: queries drawn at random, the same for every method; queries answered worst; results of each."""
LONGEST = 300
"""Characters of a text that are kept."""


def examples(
    evaluation: Evaluation, corpus: Corpus, images: Embeddings, texts: Embeddings, scorer: Scorer | None = None
) -> Examples:
    """The first results of some queries of the test stage; embeddings and scorer are those of its evaluation."""
    here = EvaluatedStage.of(corpus, "test", images, texts)
    measure: Literal["rank", "ap"] = "rank" if "rank" in evaluation.per_query else "ap"
    sides: tuple[Side, Side] = ("i2t", "t2i")
    queries = [query for side in sides for query in _of_side(side, measure, evaluation, here, scorer)]
    named = {query.image for query in queries} | {result.image for query in queries for result in query.results}
    files = corpus.images if isinstance(corpus.images, ImageFiles) else None
    rows = {str(id_): row for id_, row in zip(here.image_ids, here.stage.images, strict=True) if id_ in named}
    return Examples(
        measure,
        "" if files is None else str(real_path(files.root)),
        {} if files is None else {id_: (files.names[row], int(files.sizes[row])) for id_, row in sorted(rows.items())},
        queries,
    )


def _of_side(
    side: Side, measure: str, evaluation: Evaluation, here: EvaluatedStage, scorer: Scorer | None
) -> list[Example]:
    of_side = evaluation.per_query["direction"] == side
    ids, outcomes = evaluation.per_query["query"][of_side], evaluation.per_query[measure][of_side]
    sampled, worst = _chosen(ids, outcomes if measure == "rank" else -outcomes)
    query_ids, item_ids = (here.image_ids, here.text_ids) if side == "i2t" else (here.text_ids, here.image_ids)
    place = {id_: number for number, id_ in enumerate(query_ids)}
    rows = np.asarray([place[ids[number]] for number in (*sampled, *worst)], dtype=np.int64)
    gallery = here.positions(here.stage.gallery)
    gallery = here.texts_of(gallery) if side == "i2t" else gallery
    owners = here.owner[gallery] if side == "i2t" else gallery
    text_of_query, text_of_item = (_text_of_image, _text) if side == "i2t" else (_text, _text_of_image)
    found = []
    for number, (row, scores) in enumerate(zip(rows, _scores(side, here, rows, gallery, scorer), strict=True)):
        image = row if side == "i2t" else here.owner[row]
        right = _right(here, measure, side, row, image, gallery, owners)
        twins = _twins(here, image)
        query = (sampled + worst)[number]
        results = [
            Answer(
                str(item_ids[gallery[k]]),
                str(here.image_ids[owners[k]]),
                text_of_item(here, gallery[k]),
                float(scores[k]),
                str(right[k]),  # type: ignore[arg-type]
                int(owners[k]) in twins,
                _labels(here, image, owners[k]),
            )
            for k in np.lexsort((right != "", -scores))[:TOP]
        ]
        found.append(
            Example(
                side,
                str(ids[query]),
                str(here.image_ids[image]),
                text_of_query(here, row),
                _labels(here, image, image),
                outcomes[query].item(),
                number < len(sampled),
                results,
            )
        )
    return found


def _chosen(ids: NDArray[np.object_], badness: NDArray[np.float64]) -> tuple[list[int], list[int]]:
    """Numbers of the queries that are drawn, whatever their order, and of the worst others."""
    order = np.argsort(ids.astype(str), kind="stable")
    sampled = order[np.random.default_rng(0).permutation(len(ids))[:SAMPLE]].tolist()
    worst = [number for number in np.argsort(-badness, kind="stable").tolist() if number not in sampled]
    return sampled, worst[:WORST]


def _scores(side: Side, here: EvaluatedStage, rows: Rows, gallery: Rows, scorer: Scorer | None) -> NDArray[np.float32]:
    """Scores of the queries with the whole gallery `[q, N]`, tile by tile; equal items score equal."""
    queries, items = (here.images, here.texts) if side == "i2t" else (here.texts, here.images)
    queries = queries[torch.from_numpy(rows)]
    searched, place = distinct(items if len(gallery) == len(items) else items.select(torch.from_numpy(gallery)))
    pair: tuple[Items, Items] = (queries, searched) if side == "i2t" else (searched, queries)
    images, texts, score_pairs, tile = comparable(*pair, scorer)
    step, tiles = max(1, tile // max(1, len(rows))), []
    for start in range(0, len(searched), step):
        part = slice(start, start + step)
        left, right = (images, texts[part]) if side == "i2t" else (images[part], texts)
        scores = score(score_pairs, left, right, lambda row: "an image of an example")
        tiles.append(scores if side == "i2t" else scores.T)
    return torch.cat(tiles, dim=1)[:, place].cpu().numpy()


def _right(
    here: EvaluatedStage, measure: str, side: Side, row: int, image: int, gallery: Rows, owners: Rows
) -> NDArray[np.str_]:
    """How each item of the gallery `[N]` answers a query."""
    labels = here.corpus.labels
    if measure == "ap" and labels is not None:
        shared = (labels[here.stage.images[owners]] & labels[here.stage.images[image]]).any(axis=1)
        return np.where(shared, "label", "")
    mine, other = (0, 1) if side == "i2t" else (1, 0)
    true = here.true_pairs[here.true_pairs[:, mine] == row, other]
    return np.where(owners == image, "own", np.where(np.isin(gallery, true), "true", ""))


def _labels(here: EvaluatedStage, image: int, other: int) -> list[str]:
    """Names of the labels that two images share."""
    labels = here.corpus.labels
    if labels is None:
        return []
    shared = labels[here.stage.images[image]] & labels[here.stage.images[other]]
    names = here.corpus.label_names or [*map(str, range(len(shared)))]  # a user's dataset may lack them
    return [names[label] for label in np.flatnonzero(shared).tolist()]


def _twins(here: EvaluatedStage, image: int) -> set[int]:
    """Positions of the near twins of an image within the stage."""
    twins = here.corpus.hard_negatives
    if twins is None:
        return set()
    others = twins[twins[:, 0] == here.stage.images[image], 1]
    return set(here.positions(others[np.isin(others, here.stage.images)]).tolist())


def _text_of_image(here: EvaluatedStage, image: int) -> str:
    """The first text of an image; empty if it has none."""
    row = int(np.searchsorted(here.owner, image))
    return _text(here, row) if row < len(here.owner) and here.owner[row] == image else ""


def _text(here: EvaluatedStage, row: int) -> str:
    """A text of the stage; empty for features."""
    if not isinstance(here.corpus.texts, Strings):
        return ""
    text = here.corpus.texts[here.text_rows[row]]
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
