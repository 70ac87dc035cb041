from pathlib import Path
from typing import Any

import numpy as np
import pytest
from layouts import MIRFLICKR_LABELS, numbers_of, write_lines, write_mirflickr

from itmbench.data.corpus import Corpus, Features
from itmbench.data.datasets import MirFlickr25K
from itmbench.errors import InputError


def read(root: Path, **options: Any) -> Corpus:
    return MirFlickr25K(root, queries=1, train=3, val=1, **options).read()


def test_images_with_a_tag_and_a_label_are_kept(tmp_path: Path) -> None:
    corpus = read(write_mirflickr(tmp_path))
    # 2 and 4 have no tag of the vocabulary, 8 has no label
    assert list(corpus.image_ids) == list(corpus.text_ids) == ["im1", "im3", "im5", "im6", "im7"]
    assert list(corpus.texts.strings) == ["sun sea", "sea sun", "dog", "sea", "dog sun"]  # type: ignore[union-attr]
    assert numbers_of(corpus.images) == [1, 3, 5, 6, 7]
    assert list(corpus.label_names) == ["animals", "people", "water"]
    assert corpus.labels is not None
    assert corpus.labels.tolist() == [[0, 0, 1], [0, 0, 1], [1, 0, 0], [0, 0, 1], [1, 1, 0]]
    assert corpus.text_to_image.tolist() == [0, 1, 2, 3, 4]
    assert corpus.name == "mirflickr25k"
    assert [(count.found, count.published) for count in corpus.counts] == [
        (8, 25_000),
        (3, 1_386),
        (3, 24),
        (5, 20_015),
    ]


def test_stricter_labels_are_added_and_change_no_image(tmp_path: Path) -> None:
    labels = MIRFLICKR_LABELS | {"water_r1": [8]}  # stricter than nothing: 8 still has no potential label
    corpus = read(write_mirflickr(tmp_path, labels=labels), labels="all")
    assert corpus.name == "mirflickr25k-6"
    assert list(corpus.label_names) == ["animals", "animals_r1", "people", "people_r1", "water", "water_r1"]
    assert list(corpus.image_ids) == ["im1", "im3", "im5", "im6", "im7"]
    assert corpus.labels is not None
    assert corpus.labels[2].tolist() == [1, 1, 0, 0, 0, 0]
    assert {count.what: count.published for count in corpus.counts}["labels"] == 38


def test_bags_of_words_say_the_same_as_strings(tmp_path: Path) -> None:
    root = write_mirflickr(tmp_path)
    strings, bags = read(root).texts, read(root, text="bow").texts
    assert isinstance(bags, Features)
    for row in range(5):
        assert set(np.array(["sun", "sea", "dog"])[bags.array[row] > 0]) == set(str(strings[row]).split())


@pytest.mark.parametrize("annotations", ["mirflickr25k_annotations_v080", "mirflickr/annotations", "elsewhere"])
def test_annotations_in_all_places(tmp_path: Path, annotations: str) -> None:
    root = write_mirflickr(tmp_path, annotations=annotations)
    given = root / annotations if annotations == "elsewhere" else None
    assert read(root, annotations=given).label_names == ["animals", "people", "water"]


def test_the_folder_itself_may_be_the_root(tmp_path: Path) -> None:
    root = write_mirflickr(tmp_path, annotations="mirflickr/annotations")
    assert read(root / "mirflickr").fingerprint == read(root).fingerprint


def test_split_options_reach_the_split(tmp_path: Path) -> None:
    root = write_mirflickr(tmp_path)
    assert read(root, order="first").stages["test"].queries.tolist() == [0]
    assert read(root, order="last").stages["test"].queries.tolist() == [4]
    drawn = {tuple(read(root, split_seed=seed).stages["test"].queries.tolist()) for seed in range(20)}
    assert len(drawn) > 1


def test_without_photographs_there_are_texts_only(tmp_path: Path) -> None:
    assert read(write_mirflickr(tmp_path, images=False)).images is None


def test_a_missing_photograph_is_named(tmp_path: Path) -> None:
    root = write_mirflickr(tmp_path)
    (root / "mirflickr" / "im2.jpg").unlink()
    assert read(root).images is not None  # image 2 is not kept
    (root / "mirflickr" / "im3.jpg").unlink()
    with pytest.raises(InputError, match=r"1 of 5 images are missing, the first is im3\.jpg"):
        read(root)


@pytest.mark.parametrize(
    ("file", "lines", "message"),
    [
        ("mirflickr25k_annotations_v080/water.txt", ["1", "x3"], r"water\.txt, line 2: 'x3' is not the number"),
        ("mirflickr25k_annotations_v080/water.txt", ["1", "", "9"], r"water\.txt, line 3: 9 .* from 1 to 8"),
        ("mirflickr25k_annotations_v080/water.txt", ["0"], r"water\.txt, line 1: 0 .* from 1 to 8"),
        ("mirflickr/doc/common_tags.txt", ["sun 40", "sea"], r"common_tags\.txt, line 2: expected a tag and its count"),
        ("mirflickr/doc/common_tags.txt", ["sun x"], r"common_tags\.txt, line 1: expected a tag and its count"),
        ("mirflickr/doc/common_tags.txt", ["sun 4", "sun 3"], r"common_tags\.txt, line 2: the tag 'sun' occurs twice"),
    ],
)
def test_bad_lines_are_named(tmp_path: Path, file: str, lines: list[str], message: str) -> None:
    root = write_mirflickr(tmp_path)
    write_lines(root / file, lines)
    with pytest.raises(InputError, match=message):
        read(root)


def test_bytes_that_are_not_utf8_are_named(tmp_path: Path) -> None:
    root = write_mirflickr(tmp_path)
    (root / "mirflickr" / "meta" / "tags" / "tags5.txt").write_bytes(b"dog\ncaf\xe9\n")
    with pytest.raises(InputError, match=r"tags5\.txt, line 2: byte 0xe9 is not UTF-8"):
        read(root)


def test_missing_parts_are_named(tmp_path: Path) -> None:
    root = write_mirflickr(tmp_path)
    with pytest.raises(InputError, match="no folder of label files"):
        read(root, annotations=root / "nowhere")
    with pytest.raises(InputError, match=r"no <label>\.txt files"):
        read(root, annotations=root / "mirflickr")
    (root / "mirflickr" / "meta" / "tags" / "tags4.txt").unlink()
    with pytest.raises(InputError, match=r"missing: .*tags4\.txt"):
        read(root)
    (root / "mirflickr" / "doc" / "common_tags.txt").unlink()
    with pytest.raises(InputError, match=r"missing: .*common_tags\.txt"):
        read(root)


def test_line_ends_of_windows_read_the_same(tmp_path: Path) -> None:
    unix = read(write_mirflickr(tmp_path / "unix"))
    root = write_mirflickr(tmp_path / "windows")
    for path in root.rglob("*.txt"):
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    vocabulary = root / "mirflickr" / "doc" / "common_tags.txt"
    vocabulary.write_bytes(b"\xef\xbb\xbf" + vocabulary.read_bytes())
    windows = read(root)
    assert windows.texts.digest() == unix.texts.digest()
    np.testing.assert_array_equal(windows.labels, unix.labels)


def test_default_sizes_are_the_published_ones(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"2,000 queries and 10,000 training items, 1,000 .* fit 5 items"):
        MirFlickr25K(write_mirflickr(tmp_path)).read()
