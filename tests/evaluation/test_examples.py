"""The stored first results of some queries are those of a plain sort of all scores."""

from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from evaluation.feature_corpus import feature_corpus
from numpy.typing import NDArray
from torch import Tensor

from itmbench.data.corpus import Corpus, ImageFiles, Strings
from itmbench.encoders.embeddings import Embeddings
from itmbench.evaluation.answers import Examples
from itmbench.evaluation.examples import LONGEST, SAMPLE, TOP, WORST, examples
from itmbench.evaluation.protocol import CaptionProtocol, LabelProtocol
from itmbench.evaluation.recording import Recording, Sample, keeping

RANDOM = np.random.default_rng(0)
IMAGES, TEXTS = 60, 180
OWNER = np.arange(TEXTS) // 3
LABELS = (RANDOM.random((IMAGES, 4)) < 0.3).astype(np.uint8)
OF_IMAGES, OF_TEXTS = RANDOM.normal(size=(IMAGES, 8)), RANDOM.normal(size=(TEXTS, 8))
CORPUS = feature_corpus(OF_IMAGES, OF_TEXTS, OWNER)


def made(corpus: Corpus, protocol: CaptionProtocol | LabelProtocol | None = None) -> Examples:
    tables = tables_of(corpus)
    return examples((protocol or CaptionProtocol()).evaluate(corpus, "test", *tables), corpus, *tables)


def tables_of(corpus: Corpus) -> tuple[Embeddings, Embeddings]:
    rows = corpus.stages["test"].images
    images, texts = torch.from_numpy(OF_IMAGES[rows]), torch.from_numpy(OF_TEXTS[corpus.texts_of(rows)])
    return Embeddings(images.float()), Embeddings(texts.float())


def cosines() -> NDArray[np.float64]:
    left, right = (table / np.linalg.norm(table, axis=1, keepdims=True) for table in (OF_IMAGES, OF_TEXTS))
    return np.asarray(left @ right.T)


@pytest.mark.parametrize("side", ["i2t", "t2i"])
def test_results_of_captions_are_the_first_by_score(side: Literal["i2t", "t2i"]) -> None:
    scores = cosines() if side == "i2t" else cosines().T
    letter, other = ("i", "t") if side == "i2t" else ("t", "i")
    queries = [query for query in made(CORPUS).queries if query.side == side]
    assert [query.sampled for query in queries] == [True] * SAMPLE + [False] * WORST
    ranks = {}
    for row in range(len(scores)):
        own = row == OWNER if side == "i2t" else np.arange(IMAGES) == OWNER[row]
        ranks[f"{letter}{row}"] = 1 + int((scores[row] > scores[row][own].max()).sum())
    for query in queries:
        row = int(query.id[1:])
        order = np.argsort(-scores[row])[:TOP]
        assert [result.id for result in query.results] == [f"{other}{k}" for k in order]
        assert [result.score for result in query.results] == pytest.approx(scores[row][order].tolist(), abs=1e-5)
        image = row if side == "i2t" else OWNER[row]
        owners = OWNER[order] if side == "i2t" else order
        assert query.image == f"i{image}" and [result.image for result in query.results] == [f"i{k}" for k in owners]
        assert [result.right for result in query.results] == ["own" if k == image else "" for k in owners]
        assert query.outcome == ranks[query.id]
    others = [rank for id_, rank in ranks.items() if id_ not in {query.id for query in queries}]
    assert min(query.outcome for query in queries if not query.sampled) >= max(others)
    assert made(CORPUS).root == "" and made(CORPUS).files == {}


def test_the_draw_depends_neither_on_the_method_nor_on_the_order_of_the_items() -> None:
    ids = [{query.id for query in made(CORPUS).queries if query.sampled}]
    other = replace(CORPUS, images=CORPUS.images, image_ids=CORPUS.image_ids[::-1])
    ids.append({query.id for query in made(other).queries if query.sampled})
    assert ids[0] == ids[1]


def test_truth_twins_and_texts_are_named() -> None:
    truth = [np.unique([OWNER[text], 7]) for text in range(TEXTS)]  # every text is true of image 7 as well
    twins = np.array([[image, (image + 1) % IMAGES] for image in range(IMAGES)])
    texts = Strings([f"text {row} " + "long " * 100 * (row == 3) for row in range(TEXTS)])
    files = ImageFiles(Path("pictures"), [f"{row}.jpg" for row in range(IMAGES)], np.arange(IMAGES) + 100)
    corpus = replace(CORPUS, true_images=truth, hard_negatives=twins, texts=texts, images=files)
    shown = made(corpus)
    results = [(query, result) for query in shown.queries for result in query.results]
    for query, result in results:
        own, seven = query.image == result.image, "i7" in (query.image if query.side == "i2t" else result.image,)
        assert result.right == ("own" if own else "true" if seven else "")
        assert result.twin == (int(result.image[1:]) == (int(query.image[1:]) + 1) % IMAGES)
    assert {result.right for _, result in results} == {"own", "true", ""} and any(r.twin for _, r in results)
    for id_, text in [(item.id, item.text) for item in shown.queries] + [(item.id, item.text) for _, item in results]:
        row = int(id_[1:]) * (3 if id_[0] == "i" else 1)  # of an image, its first text
        assert text == (texts[row] if row != 3 else texts[row][: LONGEST - 1] + "…")
    assert shown.root == str(Path("pictures").resolve())
    assert set(shown.files) == {query.image for query in shown.queries} | {result.image for _, result in results}
    assert shown.files["i7"] == ("7.jpg", 107)


def test_results_of_labels_name_what_they_share_and_come_from_the_gallery() -> None:
    corpus = replace(
        feature_corpus(np.ones((IMAGES, 1)), np.ones((TEXTS, 1)), OWNER, LABELS, queries=20), label_names=[*"abcd"]
    )
    shown = made(corpus, LabelProtocol())
    assert shown.measure == "ap" and len(shown.queries) == 20 + SAMPLE + WORST
    for query in shown.queries:
        of_query = LABELS[int(query.image[1:])]
        assert query.labels == [name for name, has in zip("abcd", of_query, strict=True) if has]
        for result in query.results:
            shared = of_query & LABELS[int(result.image[1:])]
            assert result.labels == [name for name, has in zip("abcd", shared, strict=True) if has]
            assert result.right == ("label" if shared.any() else "") and int(result.image[1:]) >= 20
    nameless = made(replace(corpus, label_names=()), LabelProtocol())
    assert {label for query in nameless.queries for label in query.labels} <= {*"0123"}


def test_among_equal_scores_the_right_results_come_last() -> None:
    same = Embeddings(torch.full((IMAGES, 3), 0.3)), Embeddings(torch.full((TEXTS, 3), 0.7))
    shown = examples(CaptionProtocol().evaluate(CORPUS, "test", *same), CORPUS, *same)
    assert not [result for query in shown.queries for result in query.results if result.right]


def test_they_are_made_with_the_score_of_the_method_unless_it_scores_a_shortlist() -> None:
    def negative(rows: Embeddings, columns: Embeddings) -> Tensor:
        return -rows.pooled @ columns.pooled.T

    def recorded(protocol: CaptionProtocol, wanted: bool = True) -> Examples | None:
        recording = Recording(Sample.of(CORPUS), CORPUS, CORPUS, examples=wanted)
        keeping(protocol, recording).evaluate(CORPUS, "test", *tables_of(CORPUS), negative)
        return recording.made

    shown = recorded(CaptionProtocol())
    assert shown is not None and recorded(CaptionProtocol(), wanted=False) is None
    first = {query.id: query.results[0].id for query in shown.queries if query.side == "i2t"}
    products = OF_IMAGES @ OF_TEXTS.T
    assert first == {id_: f"t{products[int(id_[1:])].argmin()}" for id_ in first}
    assert recorded(CaptionProtocol(shortlist=20)) is None
