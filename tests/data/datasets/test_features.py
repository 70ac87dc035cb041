import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from damage import Cases, Damage, archive, changed, header, instead, npy, refused, remove, with_one, write
from own_features import ITEMS, TRAIN, write_features, write_splits

from itmbench.data.corpus import Corpus, Features
from itmbench.data.datasets import FeatureFolder
from itmbench.errors import InputError

TEST = list(range(TRAIN, ITEMS))


def read(root: Path, **options: Any) -> Corpus:
    return FeatureFolder(root, **options).read()


def features(corpus: Corpus) -> tuple[Features, Features]:
    assert isinstance(corpus.images, Features) and isinstance(corpus.texts, Features)
    return corpus.images, corpus.texts


def count(corpus: Corpus, what: str) -> int:
    return {line.what: line.found for line in corpus.counts}[what]


def test_vectors_captions_and_splits_are_read_as_they_are(tmp_path: Path) -> None:
    root = write_features(tmp_path / "mine", labels=False, captions=2)
    write_splits(root, train=[5, 3, 0], val=[9, 8], query=TEST, gallery=TEST[::-1])
    corpus = read(root)
    images, texts = features(corpus)
    assert corpus.name == "mine" and corpus.labels is None
    np.testing.assert_array_equal(images[4][0], np.load(root / "images.npy")[4])
    np.testing.assert_array_equal(texts[7][0], np.load(root / "texts.npy")[7])
    assert images[4][1] is None and texts[7][0].dtype == np.float32
    assert corpus.text_to_image.tolist() == np.repeat(np.arange(ITEMS), 2).tolist()
    assert corpus.train.tolist() == [0, 3, 5]
    assert corpus.stages["val"].queries.tolist() == corpus.stages["val"].gallery.tolist() == [8, 9]
    assert corpus.stages["test"].gallery.tolist() == TEST
    assert (count(corpus, "texts"), count(corpus, "images in no split")) == (120, ITEMS - 20 - 5)
    other = FeatureFolder(root, name="other")
    assert (other.read().name, other.batch_size, other.num_workers) == ("other", 32, 0)


def test_tokens_and_masks(tmp_path: Path) -> None:
    root = write_features(tmp_path, tokens=True)
    np.save(root / "image_mask.npy", np.eye(3)[np.arange(ITEMS) % 3])
    images, texts = features(read(root))
    assert images[1][0].shape == (3, 7) and texts[1][0].shape == (4, 5)
    assert images[1][1] is not None and images[1][1].tolist() == [False, True, False]
    assert texts[2][1] is not None and texts[2][1].tolist() == [True, True, True, False]
    np.save(root / "text_mask.npy", np.zeros((ITEMS, 4), np.uint8))
    corpus = read(root)
    assert (count(corpus, "texts without a word"), count(corpus, "images without a region")) == (ITEMS, 0)


def test_without_val_a_tenth_of_train_is_held_out_whatever_its_order(tmp_path: Path) -> None:
    root = write_features(tmp_path)
    first = read(root)
    write_splits(root, train=list(range(TRAIN))[::-1], query=TEST, gallery=TEST)
    again = read(root)
    val = first.stages["val"]
    assert len(val.queries) == 4 == count(first, "val images, taken from train")
    assert sorted([*val.queries, *first.train]) == list(range(TRAIN))
    assert val.queries.tolist() not in ([0, 1, 2, 3], [36, 37, 38, 39])
    assert again.stages["val"].queries.tolist() == val.queries.tolist()
    assert val.gallery.tolist() == first.train.tolist()  # with labels
    write_splits(root, train=[2, 1], query=TEST, gallery=TEST)
    assert len(read(root).train) == 1


def test_classes_and_multi_hot_labels(tmp_path: Path) -> None:
    root, classes = write_features(tmp_path), np.arange(ITEMS) % 4
    for stored in (3 * classes + 1, (3.0 * classes + 1)[:, None], np.eye(4)[classes], np.eye(4, dtype=bool)[classes]):
        np.save(root / "labels.npy", stored)
        corpus = read(root)
        assert corpus.labels is not None and corpus.labels.dtype == np.uint8
        np.testing.assert_array_equal(corpus.labels, np.eye(4)[classes])
        assert list(corpus.label_names) == (
            ["0", "1", "2", "3"] if stored.shape == (ITEMS, 4) else ["1", "4", "7", "10"]
        )


def split(**changed: Any) -> Damage:
    splits = {"train": list(range(TRAIN)), "query": TEST, "gallery": TEST}
    return lambda root: write_splits(root, **(splits | changed))


def own_gallery(root: Path) -> None:
    write_splits(root, train=list(range(TRAIN)), query=TEST[:5], gallery=list(range(ITEMS))[5:])
    assert len(read(root).stages["test"].gallery) == 55  # labels allow it
    (root / "labels.npy").unlink()


def mask(array: Any) -> Damage:
    return lambda root: np.save(write_features(root, tokens=True) / "text_mask.npy", array)


nan = changed("images.npy", with_one(np.nan, 33))
BROKEN_HEADER = b"\x93NUMPY\x01\x00v\x00{'descr': '<f4', 'shape': (2," + b" " * 87
NOBODY_SHARES = r"labels\.npy: no test query shares a label with another image of the gallery"
UNREADABLE = r"images\.npy: not a readable \.npy array"
WRONG: Cases = {
    "no texts": (remove("texts.npy"), r"missing: .*texts\.npy; expected images\.npy"),
    "a magic number alone": (write("images.npy", b"\x93NUMPY"), UNREADABLE),
    "an empty file": (write("images.npy", b""), UNREADABLE),
    "an archive": (archive("images.npy"), r"images\.npy: holds an archive"),
    "an archive cut short": (write("images.npy", b"PK\x03\x04cut"), UNREADABLE),
    "a header cut short": (write("images.npy", BROKEN_HEADER), UNREADABLE),
    "a shape of 10^18 x 10^18": (header("images.npy", f"({10**18}, {10**18})"), r"images\.npy"),
    "a shape of 10^30": (header("images.npy", f"({10**30},)"), r"images\.npy"),
    "a shape that is True": (header("images.npy", "(True, 5)"), r"images\.npy"),
    "a shape below 0": (header("images.npy", "(-1, 5)"), r"images\.npy"),
    "a shape of more than there is": (header("images.npy", "(60, 7)"), r"images\.npy"),
    "a shape that is code": (header("images.npy", "__import__('os').abort()"), r"images\.npy"),
    "objects": (npy("images.npy", np.array([{}], dtype=object)), UNREADABLE + " of numbers"),
    "texts for numbers": (npy("images.npy", ["a", "b"]), r"images\.npy: holds <U1; expected one row of numbers"),
    "complex numbers": (npy("images.npy", np.ones((60, 7), complex)), r"images\.npy"),
    "dates": (npy("images.npy", np.zeros((60, 7), "datetime64[s]")), r"images\.npy"),
    "a scalar": (npy("images.npy", 3.0), r"images\.npy"),
    "one dimension": (npy("texts.npy", np.zeros(60)), r"texts\.npy: has shape \[60\]; expected"),
    "no rows": (npy("images.npy", np.zeros((0, 7))), r"images\.npy"),
    "no columns": (npy("texts.npy", np.zeros((60, 0))), r"texts\.npy: has shape \[60, 0\]; expected"),
    "four dimensions": (npy("images.npy", np.zeros((60, 2, 2, 7))), r"images\.npy"),
    "NaN": (nan, r"images\.npy: row 33 holds NaN"),
    "infinity": (changed("texts.npy", with_one(np.inf)), "row 59"),
    "too large": (
        changed("texts.npy", with_one(1e39)),
        r"texts\.npy: row 59 holds NaN, infinity or a number too large",
    ),
    "too few owners": (
        npy("text_to_image.npy", np.arange(59)),
        r"text_to_image\.npy: has 59 rows, but texts\.npy has 60",
    ),
    "owners beyond": (
        npy("text_to_image.npy", np.arange(60) + 1),
        r"image\.npy: row 59 names image 60, .* rows 0 to 59",
    ),
    "owners below 0": (npy("text_to_image.npy", np.arange(60) - 1), r"image\.npy: row 0 holds -1, not an image row"),
    "half owners": (npy("text_to_image.npy", np.arange(60) + 0.5), r"image\.npy: row 0 holds 0\.5, not an image row"),
    "owners of texts": (npy("text_to_image.npy", np.full(60, "0")), r"text_to_image\.npy"),
    "no text": (
        npy("text_to_image.npy", np.arange(60) // 2),
        "train names 10 images without a text .* the first is 30",
    ),
    "a misspelt mask": (npy("texts_mask.npy", np.ones((60, 5))), r"texts_mask\.npy: does not belong .*text_mask\.npy"),
    "a mask of vectors": (
        npy("text_mask.npy", np.ones((60, 4))),
        r"text_mask\.npy: has shape \[60, 4\], but texts\.npy has \[60, 5\]",
    ),
    "a mask too short": (mask(np.ones((60, 3))), r"text_mask\.npy: .*\[60, 3\], but"),
    "a mask of 2": (mask(np.full((60, 4), 2)), r"text_mask\.npy: row 0 holds a number other"),
    "too few labels": (npy("labels.npy", np.zeros(59)), r"labels\.npy: has 59 rows, but images\.npy has 60"),
    "labels below 0": (npy("labels.npy", np.arange(60) - 2), r"labels\.npy: row 0 holds -2, not a class"),
    "classes NaN": (npy("labels.npy", np.full(60, np.nan)), r"labels\.npy: row 0 holds nan, not a class"),
    "labels NaN": (npy("labels.npy", np.full((60, 3), np.nan)), r"labels\.npy"),
    "labels above 1": (npy("labels.npy", np.arange(120).reshape(60, 2)), r"labels\.npy: row 1 holds a number other"),
    "labels in three dimensions": (npy("labels.npy", np.zeros((60, 2, 2))), r"labels\.npy: has shape \[60, 2, 2\]"),
    "no labels": (npy("labels.npy", np.zeros((60, 3))), NOBODY_SHARES),
    "labels that nobody shares": (npy("labels.npy", np.arange(60)), NOBODY_SHARES),
    "one label that all have": (npy("labels.npy", np.zeros(60, int)), r"labels\.npy"),
    "labels a folder": (instead("labels.npy", Path.mkdir), r"labels\.npy"),
    "labels a dead link": (
        instead("labels.npy", lambda path: path.symlink_to("gone.npy")),
        r"labels\.npy: not a readable \.npy array",
    ),
    "splits nested 100,000 deep": (write("splits.json", b"[" * 100_000), r"splits\.json: cannot be read"),
    "a number of 5,000 digits": (
        write("splits.json", b'{"train": [' + b"1" * 5000 + b"]}"),
        r"splits\.json: cannot be read",
    ),
    "splits given twice": (
        write("splits.json", b'{"train": [1], "train": [2]}'),
        r"splits\.json: 'train' occurs twice",
    ),
    "splits cut short": (write("splits.json", b"{train"), r"splits\.json, line 1, column 2: not JSON"),
    "splits a list": (write("splits.json", [1]), r"splits\.json: not an object"),
    "splits a text": (write("splits.json", "train"), r"splits\.json"),
    "another split": (split(test=[1]), r"splits\.json: unknown key 'test'"),
    "no gallery": (lambda root: write_splits(root, train=[1], query=[2]), r"splits\.json: no 'gallery'"),
    "train empty": (split(train=[]), r"splits\.json: train is not a list of at least one image row"),
    "train an object": (split(train={"0": 1}), r"splits\.json: train is not a list"),
    "a row beyond": (split(train=[1, 60]), r"splits\.json: train\[1\] is 60, not an image row from 0 to 59"),
    "a row below 0": (split(train=[1, -1]), r"splits\.json: train\[1\] is -1, not an image row"),
    "a row 2.0": (split(train=[1, 2.0]), r"splits\.json: train\[1\] is 2\.0, not an image row"),
    "a row true": (split(train=[1, True]), r"splits\.json: train\[1\] is True, not an image row"),
    "a row of text": (split(train=["1"]), r"splits\.json"),
    "a row NaN": (split(train=[float("nan")]), r"splits\.json"),
    "a row twice": (split(train=[7, 7]), r"splits\.json: train names image 7 twice"),
    "test rows in train": (split(train=[1, 40, 41]), r"splits\.json: train and query share 2 images, the first is 40"),
    "val rows in train": (split(val=[3]), r"splits\.json: train and val share 1 images, the first is 3"),
    "test rows in val": (split(train=[1], val=[59]), r"splits\.json: val and query share 1 images, the first is 59"),
    "train too small": (split(train=[1]), r"splits\.json: train has one image, too few to take val from"),
    "a gallery of captions": (own_gallery, r"splits\.json: .* query and gallery must hold the same images"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_files_are_named_in_one_line(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("itmbench.data.reading.CHUNK", 50)  # the wrong row is not in the first chunk
    root = write_features(tmp_path)
    damage, message = WRONG[case]
    damage(root)
    assert re.search(message, refused(read, root))


def test_changes_are_noticed_and_files_hashed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ITMBENCH_CACHE", str(tmp_path / "cache"))
    root, fingerprints = write_features(tmp_path / "set", tokens=True), set()
    for row in (0, 17, 59):
        array = np.load(root / "images.npy")
        array[row] += 1
        np.save(root / "images.npy", array)
        for path in root.iterdir():
            os.utime(path, (1e9 + row, 1e9 + row))  # long past, like real data
        fingerprints |= {FeatureFolder(root).corpus.fingerprint, read(root).fingerprint}
    assert len(fingerprints) == 3
    with monkeypatch.context() as patch:
        patch.setattr("itmbench.data.cache.file_digest", None)
        patch.setattr("itmbench.data.corpus.file_digest", None)
        assert FeatureFolder(root).corpus.fingerprint in fingerprints
    (root / "text_mask.npy").unlink()
    assert FeatureFolder(root).corpus.fingerprint not in fingerprints
    nan(root)
    with pytest.raises(InputError, match="row 33 holds NaN"):
        FeatureFolder(root).corpus  # noqa: B018
