import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from damage import Cases, lines, refused, remove, write
from layouts import MIRFLICKR_LABELS, numbers_of, write_mirflickr

from itmbench.data.corpus import Corpus, Features
from itmbench.data.datasets import MirFlickr25K
from itmbench.errors import InputError

LABELS = "mirflickr25k_annotations_v080"


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
    assert (corpus.name, read(tmp_path, name="other").name) == ("mirflickr25k", "other")
    counts = [(count.found, count.published) for count in corpus.counts]
    assert counts == [(8, 25_000), (3, 1_386), (3, 24), (5, 20_015)]
    assert not any(count.published for count in read(tmp_path, name="other").counts)
    bags = read(tmp_path, text="bow").texts
    assert isinstance(bags, Features)
    for row in range(5):
        assert set(np.array(["sun", "sea", "dog"])[bags.array[row] > 0]) == set(str(corpus.texts[row]).split())


def test_stricter_labels_are_added_and_keep_the_same_images(tmp_path: Path) -> None:
    labels = MIRFLICKR_LABELS | {"water_r1": [8]}  # image 8 still has no potential label
    corpus = read(write_mirflickr(tmp_path, labels=labels), labels="all")
    assert corpus.name == "mirflickr25k-6"
    assert list(corpus.label_names) == ["animals", "animals_r1", "people", "people_r1", "water", "water_r1"]
    assert list(corpus.image_ids) == ["im1", "im3", "im5", "im6", "im7"]
    assert corpus.labels is not None
    assert corpus.labels[2].tolist() == [1, 1, 0, 0, 0, 0]
    assert {count.what: count.published for count in corpus.counts}["labels"] == 38


@pytest.mark.parametrize("annotations", [LABELS, "mirflickr/annotations", "elsewhere"])
def test_annotations_in_all_places(tmp_path: Path, annotations: str) -> None:
    root = write_mirflickr(tmp_path, annotations=annotations)
    given = root / annotations if annotations == "elsewhere" else None
    corpus = read(root, annotations=given)
    assert corpus.label_names == ["animals", "people", "water"]
    if annotations == "mirflickr/annotations":
        assert read(root / "mirflickr").fingerprint == corpus.fingerprint


def test_split_options_reach_the_split(tmp_path: Path) -> None:
    root = write_mirflickr(tmp_path)
    assert read(root, order="first").stages["test"].queries.tolist() == [0]
    assert read(root, order="last").stages["test"].queries.tolist() == [4]
    assert len({tuple(read(root, split_seed=seed).stages["test"].queries.tolist()) for seed in range(20)}) > 1
    with pytest.raises(InputError, match=r"2,000 queries and 10,000 training items, 1,000 .* fit 5 items"):
        MirFlickr25K(root).read()


def test_photographs_may_all_be_missing_but_not_one_that_is_kept(tmp_path: Path) -> None:
    assert read(write_mirflickr(tmp_path / "texts", images=False)).images is None
    root = write_mirflickr(tmp_path)
    (root / "mirflickr" / "im2.jpg").unlink()
    assert read(root).images is not None  # image 2 is not kept
    (root / "mirflickr" / "im3.jpg").unlink()
    with pytest.raises(InputError, match=r"1 of 5 images is missing, im3\.jpg"):
        read(root)


VOCABULARY = "mirflickr/doc/common_tags.txt"
WRONG: Cases = {
    "a label of letters": (lines(f"{LABELS}/water.txt", "1", "x3"), r"water\.txt, line 2: 'x3' is not the number"),
    "a label beyond": (lines(f"{LABELS}/water.txt", "1", "", "9"), r"water\.txt, line 3: 9 .* from 1 to 8"),
    "a label below 1": (lines(f"{LABELS}/water.txt", "0"), r"water\.txt, line 1: 0 .* from 1 to 8"),
    "a label of 5,000 digits": (lines(f"{LABELS}/water.txt", "9" * 5000), r"water\.txt, line 1"),
    "a label in superscript": (lines(f"{LABELS}/water.txt", "1²"), r"water\.txt, line 1"),
    "a label file of bytes": (write(f"{LABELS}/water.txt", b"\xff\xfe"), r"water\.txt, line 1"),
    "a tag without count": (lines(VOCABULARY, "sun 40", "sea"), r"tags\.txt, line 2: expected a tag and its count"),
    "a count of letters": (lines(VOCABULARY, "sun x"), r"tags\.txt, line 1: expected a tag and its count"),
    "a tag twice": (lines(VOCABULARY, "sun 4", "sun 3"), r"tags\.txt, line 2: the tag 'sun' occurs twice"),
    "an empty vocabulary": (lines(VOCABULARY), r"common_tags\.txt"),
    "tags in Latin-1": (
        write("mirflickr/meta/tags/tags5.txt", b"dog\ncaf\xe9\n"),
        r"tags5\.txt, line 2: byte 0xe9 is not UTF-8",
    ),
    "a gap in the tags": (remove("mirflickr/meta/tags/tags4.txt"), r"missing: .*tags4\.txt"),
    "tags of a huge number": (lines(f"mirflickr/meta/tags/tags{'9' * 200}.txt"), r"tags9\.txt"),
    "no vocabulary": (remove(VOCABULARY), r"missing: .*common_tags\.txt"),
    "labels elsewhere": (lambda root: (root / LABELS).rename(root / "elsewhere"), "no folder of label files"),
    "no labels": (remove(*(f"{LABELS}/{name}.txt" for name in MIRFLICKR_LABELS)), r"no <label>\.txt files"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_files_are_named_in_one_line(case: str, tmp_path: Path) -> None:
    damage, message = WRONG[case]
    damage(write_mirflickr(tmp_path))
    assert re.search(message, refused(read, tmp_path))


def test_windows_line_ends_read_the_same(tmp_path: Path) -> None:
    unix, root = read(write_mirflickr(tmp_path / "unix")), write_mirflickr(tmp_path / "windows")
    for path in root.rglob("*.txt"):
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    vocabulary = root / "mirflickr" / "doc" / "common_tags.txt"
    vocabulary.write_bytes(b"\xef\xbb\xbf" + vocabulary.read_bytes())
    assert read(root).texts.digest() == unix.texts.digest()
    np.testing.assert_array_equal(read(root).labels, unix.labels)
