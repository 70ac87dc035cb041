"""Canary corpora: who keeps what, and that nothing of a content's own place is left."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from evaluation.feature_corpus import feature_corpus, vectors
from toy import toy_corpus

from itmbench.data.corpus import Corpus, Features, ImageFiles, Strings
from itmbench.evaluation.canaries import blinded, constant, exchanged, part, reassigned


def test_a_part_keeps_so_many_images_of_the_stage(tmp_path: Path) -> None:
    corpus = toy_corpus(tmp_path, copies=1)
    small = part(corpus, 5)
    stage = small.stages["test"]
    assert len(stage.images) == 5 and set(stage.images) <= set(corpus.stages["test"].images)
    assert np.array_equal(stage.queries, stage.gallery)
    assert small.stages["val"] is corpus.stages["val"] and small.images is corpus.images
    assert not np.array_equal(part(corpus, 5, seed=1).stages["test"].images, stage.images)
    assert part(corpus, 16).stages["test"] is corpus.stages["test"]


def test_a_part_of_queries_and_another_gallery(tmp_path: Path) -> None:
    corpus = toy_corpus(tmp_path, labels=True, copies=1)
    stage, whole = part(corpus, 12).stages["test"], corpus.stages["test"]
    assert (len(stage.queries), len(stage.gallery)) == (3, 9)
    assert set(stage.queries) <= set(whole.queries) and set(stage.gallery) <= set(whole.gallery)


def contents(corpus: Corpus) -> tuple[list[str], list[str]]:
    assert isinstance(corpus.images, ImageFiles) and isinstance(corpus.texts, Strings)
    return list(corpus.images.names), list(corpus.texts.strings)


def test_contents_of_the_test_stage_are_exchanged_and_all_else_stays(tmp_path: Path) -> None:
    corpus = toy_corpus(tmp_path, copies=1)
    changed = reassigned(corpus)
    test = corpus.stages["test"].images
    texts = corpus.texts_of(test)
    for rows, (before, after) in zip((test, texts), zip(contents(corpus), contents(changed), strict=True), strict=True):
        other = [row for row in range(len(before)) if row not in rows]
        assert [after[row] for row in other] == [before[row] for row in other]
        assert sorted(after[row] for row in rows) == sorted(before[row] for row in rows)
        assert sum(after[row] == before[row] for row in rows) < 6
    assert isinstance(changed.images, ImageFiles)
    assert changed.images.sizes.tolist() == [(tmp_path / name).stat().st_size for name in changed.images.names]
    assert changed.text_to_image is corpus.text_to_image and changed.image_ids is corpus.image_ids
    assert contents(reassigned(corpus)) == contents(changed) != contents(reassigned(corpus, seed=1))


def test_images_and_texts_are_exchanged_independently() -> None:
    corpus = feature_corpus(np.arange(50.0)[:, None], np.arange(50.0)[:, None], np.arange(50))
    changed = reassigned(corpus)
    images, texts = (vectors(source, np.arange(50)).pooled for source in (changed.images, changed.texts))
    assert int((images == texts).sum()) < 6


@pytest.mark.parametrize("rows", [None, np.array([3, 2, 1, 0])])
def test_features_keep_their_mask(rows: np.ndarray | None) -> None:
    values = np.arange(12, dtype=np.float32).reshape(4, 3, 1)
    features = Features(values, mask=values[..., 0] % 2 == 0, rows=rows)
    corpus = feature_corpus(np.zeros((4, 1), np.float32), np.zeros((4, 1), np.float32), np.arange(4))
    corpus = replace(corpus, texts=features)
    for changed, different in ((reassigned(corpus), 4), (constant(corpus), 1)):
        assert isinstance(changed.texts, Features)
        items = [changed.texts[row] for row in range(4)]
        assert all(np.array_equal(array[:, 0] % 2 == 0, np.asarray(mask)) for array, mask in items)
        assert len({array[0, 0] for array, _ in items}) == different
    assert np.array_equal(items[3][0], features[0][0])


def test_a_constant_corpus_holds_one_content_a_modality(tmp_path: Path) -> None:
    corpus = toy_corpus(tmp_path, copies=1)
    test = corpus.stages["test"].images
    images, texts = contents(constant(corpus))
    assert {images[row] for row in test} == {corpus.image_ids[test[0]]}
    assert len({texts[row] for row in corpus.texts_of(test)}) == 1
    assert images[:16] == contents(corpus)[0][:16]


@pytest.mark.parametrize("labels", [False, True])
def test_a_blinded_corpus_is_found_again_by_its_places(tmp_path: Path, labels: bool) -> None:
    corpus = part(toy_corpus(tmp_path, labels, copies=1), 24)
    test = corpus.stages["test"].images
    hidden = blinded(corpus)
    for places, rows, source, given in (
        (hidden.images, test, corpus.images, hidden.corpus.images),
        (hidden.texts, corpus.texts_of(test), corpus.texts, hidden.corpus.texts),
    ):
        assert source is not None and given is not None and sorted(places) == list(range(len(rows)))
        for place, row in zip(places, rows, strict=True):
            assert np.array_equal(np.asarray(given[int(rows[place])]), np.asarray(source[int(row)]))
        moved = ~np.isin(rows if rows is test else corpus.text_to_image[rows], corpus.train)
        assert (places != np.arange(len(rows)))[moved].mean() > 0.7 and not (places != np.arange(len(rows)))[
            ~moved
        ].any()


def test_a_blinded_corpus_shows_neither_names_nor_sizes_of_test_files(tmp_path: Path) -> None:
    corpus = toy_corpus(tmp_path, copies=1)
    files, test = blinded(corpus).corpus.images, corpus.stages["test"].images
    assert isinstance(files, ImageFiles) and isinstance(corpus.images, ImageFiles)
    assert not {files.names[row] for row in test} & set(corpus.images.names) and not files.sizes[test].any()
    assert list(files.names[:16]) == list(corpus.images.names[:16])
    # What a frozen encoder gave is found by the same key.
    assert {files.key(row) for row in test} == {corpus.images.key(row) for row in test}


def test_contents_and_labels_are_exchanged_among_the_given_rows(tmp_path: Path) -> None:
    corpus = toy_corpus(tmp_path, labels=True, copies=1)
    rows = np.arange(16, 48)
    changed = exchanged(corpus, rows)
    assert corpus.labels is not None and changed.labels is not None
    assert np.array_equal(changed.labels[:16], corpus.labels[:16])
    assert not np.array_equal(changed.labels, corpus.labels) and np.array_equal(
        changed.labels.sum(0), corpus.labels.sum(0)
    )
    assert contents(changed)[0][:16] == contents(corpus)[0][:16] and contents(changed) != contents(corpus)
