import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
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


def nan(root: Path) -> None:
    array = np.load(root / "images.npy")
    array[33, 2] = np.nan
    np.save(root / "images.npy", array)


def too_large(root: Path) -> None:
    array = np.load(root / "texts.npy").astype(np.float64)
    array[59, 0] = 1e39
    np.save(root / "texts.npy", array)


def saved(name: str, array: Any) -> Callable[[Path], None]:
    return lambda root: np.save(root / f"{name}.npy", array)


def split(**changed: Any) -> Callable[[Path], None]:
    splits = {"train": list(range(TRAIN)), "query": TEST, "gallery": TEST}
    return lambda root: write_splits(root, **(splits | changed))


def written(name: str, content: bytes) -> Callable[[Path], Any]:
    return lambda root: (root / name).write_bytes(content)


def zipped(root: Path) -> None:
    with (root / "images.npy").open("wb") as file:
        np.savez(file, a=np.ones(3))


def own_gallery(root: Path) -> None:
    write_splits(root, train=list(range(TRAIN)), query=TEST[:5], gallery=list(range(ITEMS))[5:])
    assert len(read(root).stages["test"].gallery) == 55  # labels allow it
    (root / "labels.npy").unlink()


def mask(array: Any) -> Callable[[Path], None]:
    return lambda root: np.save(write_features(root, tokens=True) / "text_mask.npy", array)


def dangling(root: Path) -> None:
    (root / "labels.npy").unlink()
    (root / "labels.npy").symlink_to(root / "nowhere.npy")


WRONG: list[tuple[Callable[[Path], Any], str]] = [
    (lambda root: (root / "texts.npy").unlink(), r"missing: .*texts\.npy; expected images\.npy"),
    (written("images.npy", b"\x93NUMPY"), r"images\.npy: not a readable \.npy array"),
    (written("images.npy", b""), r"images\.npy: not a readable \.npy array"),
    (zipped, r"images\.npy: holds an archive"),
    (written("images.npy", b"PK\x03\x04cut"), r"images\.npy: not a readable \.npy array"),
    (
        written("images.npy", b"\x93NUMPY\x01\x00v\x00{'descr': '<f4', 'shape': (2," + b" " * 87),
        r"images\.npy: not a readable",
    ),
    (saved("texts_mask", np.ones((60, 5))), r"texts_mask\.npy: does not belong in a feature folder.*text_mask\.npy"),
    (dangling, r"labels\.npy: not a readable \.npy array"),
    (
        saved("labels", np.zeros((60, 3))),
        r"labels\.npy: no test query shares a label with another image of the gallery",
    ),
    (saved("labels", np.arange(60)), r"labels\.npy: no test query shares a label with another image of the gallery"),
    (written("splits.json", b"[" * 100_000), r"splits\.json: cannot be read"),
    (written("splits.json", b'{"train": [' + b"1" * 5000 + b"]}"), r"splits\.json: cannot be read"),
    (written("splits.json", b'{"train": [1], "train": [2]}'), r"splits\.json: 'train' occurs twice"),
    (saved("images", np.array([{}], dtype=object)), r"images\.npy: not a readable \.npy array of numbers"),
    (saved("images", np.array(["a", "b"])), r"images\.npy: holds <U1; expected one row of numbers"),
    (saved("texts", np.zeros(60)), r"texts\.npy: has shape \[60\]; expected"),
    (saved("texts", np.zeros((60, 0))), r"texts\.npy: has shape \[60, 0\]; expected"),
    (nan, r"images\.npy: row 33 holds NaN"),
    (too_large, r"texts\.npy: row 59 holds NaN, infinity or a number too large"),
    (saved("text_to_image", np.arange(59)), r"text_to_image\.npy: has 59 rows, but texts\.npy has 60"),
    (saved("text_to_image", np.arange(60) + 1), r"text_to_image\.npy: row 59 names image 60, .* rows 0 to 59"),
    (saved("text_to_image", np.arange(60) - 1), r"text_to_image\.npy: row 0 holds -1, not an image row"),
    (saved("text_to_image", np.arange(60) + 0.5), r"text_to_image\.npy: row 0 holds 0\.5, not an image row"),
    (saved("text_to_image", np.arange(60) // 2), r"train names 10 images without a text .* the first is 30"),
    (saved("text_mask", np.ones((60, 4))), r"text_mask\.npy: has shape \[60, 4\], but texts\.npy has \[60, 5\]"),
    (saved("labels", np.zeros(59)), r"labels\.npy: has 59 rows, but images\.npy has 60"),
    (saved("labels", np.arange(60) - 2), r"labels\.npy: row 0 holds -2, not a class"),
    (saved("labels", np.full(60, np.nan)), r"labels\.npy: row 0 holds nan, not a class"),
    (saved("labels", np.arange(120).reshape(60, 2)), r"labels\.npy: row 1 holds a number other than 0 and 1"),
    (saved("labels", np.zeros((60, 2, 2))), r"labels\.npy: has shape \[60, 2, 2\]"),
    (written("splits.json", b"{train"), r"splits\.json, line 1, column 2: not JSON"),
    (written("splits.json", b"[1]"), r"splits\.json: not an object"),
    (split(test=[1]), r"splits\.json: unknown key 'test'"),
    (lambda root: write_splits(root, train=[1], query=[2]), r"splits\.json: no 'gallery'"),
    (split(train=[]), r"splits\.json: train is not a list of at least one image row"),
    (split(train={"0": 1}), r"splits\.json: train is not a list"),
    (split(train=[1, 60]), r"splits\.json: train\[1\] is 60, not an image row from 0 to 59"),
    (split(train=[1, -1]), r"splits\.json: train\[1\] is -1, not an image row"),
    (split(train=[1, 2.0]), r"splits\.json: train\[1\] is 2\.0, not an image row"),
    (split(train=[1, True]), r"splits\.json: train\[1\] is True, not an image row"),
    (split(train=[7, 7]), r"splits\.json: train names image 7 twice"),
    (split(train=[1, 40, 41]), r"splits\.json: train and query share 2 images, the first is 40"),
    (split(val=[3]), r"splits\.json: train and val share 1 images, the first is 3"),
    (split(train=[1], val=[59]), r"splits\.json: val and query share 1 images, the first is 59"),
    (split(train=[1]), r"splits\.json: train has one image, too few to take val from"),
    (own_gallery, r"splits\.json: .* query and gallery must hold the same images"),
    (mask(np.ones((60, 3))), r"text_mask\.npy: .*\[60, 3\], but"),
    (mask(np.full((60, 4), 2)), r"text_mask\.npy: row 0 holds a number other"),
]


@pytest.mark.parametrize(("spoil", "message"), WRONG, ids=range(len(WRONG)))
def test_wrong_files_are_named_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoil: Callable[[Path], Any], message: str
) -> None:
    monkeypatch.setattr("itmbench.data.reading.CHUNK", 50)  # the wrong row is not in the first chunk
    root = write_features(tmp_path)
    spoil(root)
    with pytest.raises(InputError, match=message) as error:
        read(root)
    assert "\n" not in str(error.value)


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
