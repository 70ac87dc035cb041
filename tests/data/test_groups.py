"""Groups of images: against the closure of a relation, and from files on disk."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from evaluation.toy_retrieval import make_corpus
from hypothesis import given
from hypothesis import strategies as st
from layouts import karpathy_entries, write_karpathy
from PIL import Image

from itmbench.data.corpus import Count, ImageFiles, Stage, Strings
from itmbench.data.datasets.captions import KarpathyCaptions
from itmbench.data.groups import with_groups

ROWS = st.integers(0, 59)


@given(st.lists(st.tuples(ROWS, ROWS), max_size=40), st.lists(st.integers(0, 90), min_size=60, max_size=60))
def test_groups_are_the_closure_of_twins_and_what_a_reader_says(twins: list[tuple[int, int]], said: list[int]) -> None:
    pairs = np.asarray(twins, np.int64).reshape(-1, 2)
    groups = with_groups(replace(make_corpus(), hard_negatives=pairs, groups=np.asarray(said))).groups
    same = np.equal.outer(said, said)
    for one, other in twins:
        same[one, other] = same[other, one] = True
    for middle in range(60):  # Warshall's algorithm
        same |= np.outer(same[:, middle], same[middle])
    assert groups is not None
    assert np.array_equal(np.equal.outer(groups, groups), same)


def test_identical_files_of_query_images_are_one_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    contents = ["a", "bb", "a", "c", "bb", "dd", "a"]
    for row, content in enumerate(contents):
        (tmp_path / str(row)).write_text(content)
    (tmp_path / "5").unlink()  # has the size of two others
    files = ImageFiles(tmp_path, list("0123456"), np.array([len(content) for content in contents]))
    queries = Stage(np.arange(6), np.arange(7))
    corpus = replace(
        make_corpus(),
        images=files,
        image_ids=list("0123456"),
        text_ids=[],
        texts=Strings([]),
        text_to_image=np.empty(0, np.int64),
        train=np.array([6]),
        stages={"test": queries},
        labels=None,
    )
    grouped = with_groups(corpus)
    groups = grouped.groups
    assert groups is not None and grouped.counts[-1] == Count("training images identical to a query", 1)
    assert [groups.tolist().index(group) for group in groups] == [0, 1, 0, 3, 1, 5, 6]  # row 6 is no query
    assert with_groups(replace(corpus, stages={"test": Stage(np.arange(2), np.arange(2))})).groups is None
    apart = with_groups(replace(corpus, train=np.array([3])))
    assert "identical" not in str(apart.counts)


def test_a_datamodule_gives_groups_that_change_no_fingerprint(tmp_path: Path) -> None:
    write_karpathy(tmp_path, karpathy_entries())
    plain = KarpathyCaptions(tmp_path)
    assert plain.corpus.images is not None and isinstance(plain.corpus.images, ImageFiles)
    test = plain.corpus.stages["test"].queries
    names = [tmp_path / plain.corpus.images.root / plain.corpus.images.names[row] for row in test[:2]]
    Image.new("RGB", (8, 8)).save(names[0])
    names[1].write_bytes(names[0].read_bytes())
    for _ in range(2):  # read, then from the cache
        corpus = KarpathyCaptions(tmp_path).corpus
        assert corpus.groups is not None and corpus.groups[test[0]] == corpus.groups[test[1]]
        assert len(np.unique(corpus.groups)) == len(corpus.image_ids) - 1
    assert corpus.fingerprint == replace(corpus, groups=None).fingerprint
