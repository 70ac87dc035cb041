import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from damage import Cases, Damage, archive, changed, header, lines, npy, refused, remove, with_one, write
from layouts import write_lines, write_regions

from itmbench.data.corpus import Corpus, Features, NpyRows
from itmbench.data.datasets import PrecomputedRegions
from itmbench.errors import InputError


def read(root: Path, **options: Any) -> Corpus:
    return PrecomputedRegions(root, **options).corpus


@pytest.mark.parametrize("copies", [1, 5])
def test_images_stored_once_or_once_per_caption_read_the_same(tmp_path: Path, copies: int) -> None:
    corpus = read(write_regions(tmp_path, copies))
    assert isinstance(corpus.images, Features)
    assert [corpus.images[row][0][0, 0] for row in range(len(corpus.images))] == list(range(9))
    assert corpus.texts[23] == "image 4 caption 3"
    assert corpus.text_to_image.tolist() == np.repeat(np.arange(9), 5).tolist()
    assert corpus.train.tolist() == [0, 1, 2, 3]
    assert corpus.stages["val"].queries.tolist() == [4, 5]
    assert corpus.stages["test"].gallery.tolist() == [6, 7, 8]
    assert corpus.image_ids[:5] == ["train/0", "train/1", "train/2", "train/3", "dev/0"]
    assert corpus.text_ids[20] == "dev/0"
    assert {count.what: count.published for count in corpus.counts}["captions"] == 155_070
    write_lines(tmp_path / "test_ids.txt", [70] * 5 + [71] * 5 + [72] * 5)
    assert read(tmp_path).text_to_image.tolist() == np.repeat(np.arange(9), 5).tolist()


def test_ids_name_images_or_assign_captions(tmp_path: Path) -> None:
    root = write_regions(tmp_path)
    write_lines(root / "test_ids.txt", [70, 71, 72])
    assert read(root).image_ids[-3:] == ["test/70", "test/71", "test/72"]
    write_lines(root / "test_ids.txt", [70] * 3 + [71] * 7 + [72] * 4 + [70])
    assert read(root).text_to_image[-15:].tolist() == [6] * 3 + [7] * 7 + [8] * 4 + [6]


def test_all_of_cocos_test_images_are_read_where_only_they_are_or_on_request(tmp_path: Path) -> None:
    root = write_regions(tmp_path)
    first = read(root).fingerprint
    for ending in ("ims.npy", "caps.txt"):
        (root / f"test_{ending}").rename(root / f"testall_{ending}")
    everything = read(root)
    assert everything.image_ids[-3:] == ["testall/0", "testall/1", "testall/2"]
    assert everything.stages["test"].queries.tolist() == [6, 7, 8] and everything.fingerprint != first
    write_lines(root / "test_caps.txt", [f"caption {row}" for row in range(5)])
    np.save(root / "test_ims.npy", np.load(root / "testall_ims.npy")[:1])
    assert read(root).stages["test"].queries.tolist() == [6]
    assert read(root, test="testall").fingerprint == everything.fingerprint
    (root / "testall_caps.txt").unlink()
    with pytest.raises(InputError, match=r"missing: .*testall_caps\.txt"):
        read(root, test="testall")


def test_one_caption_per_image(tmp_path: Path) -> None:
    root = write_regions(tmp_path)
    for split, images in (("train", 4), ("dev", 2), ("test", 3)):
        write_lines(root / f"{split}_caps.txt", [f"caption {row}" for row in range(images)])
    assert read(root, captions_per_image=1).text_to_image.tolist() == list(range(9))
    with pytest.raises(InputError, match="captions_per_image"):
        read(root)


def differ(root: Path) -> None:
    copies = np.load(write_regions(root, copies=5) / "dev_ims.npy")
    copies[6] += 1
    np.save(root / "dev_ims.npy", copies)


def in_all(kind: type) -> Damage:
    """All features of another type."""
    return lambda root: [
        changed(f"{name}_ims.npy", lambda a: a.astype(kind))(root) for name in ("train", "dev", "test")
    ]


DEV = "dev_ims.npy"
WRONG: Cases = {
    "too many rows": (
        npy(DEV, np.zeros((3, 3, 4), np.float32)),
        r"dev_ims\.npy has 3 rows for 2 images with 10 captions",
    ),
    "another width": (npy(DEV, np.zeros((2, 3, 5), np.float32)), r"dev_ims\.npy: rows are float32 \(3, 5\), but"),
    "no rows": (npy(DEV, np.zeros((0, 3, 4), np.float32)), r"dev_ims\.npy"),
    "a scalar": (npy(DEV, 2.0), r"dev_ims\.npy"),
    "NaN": (changed("test_ims.npy", with_one(np.nan)), r"test_ims\.npy"),
    "infinity": (changed("train_ims.npy", with_one(np.inf)), r"train_ims\.npy"),
    "complex numbers": (changed(DEV, lambda array: array.astype(complex)), r"dev_ims\.npy"),
    "complex numbers in all": (in_all(complex), r"train_ims\.npy"),
    "texts in all": (in_all(str), r"train_ims\.npy"),
    "a magic number alone": (write(DEV, b"\x93NUMPY"), r"dev_ims\.npy: not a readable \.npy array"),
    "a shape of 10^30": (header("train_ims.npy", f"({10**30}, 3, 4)"), r"train_ims\.npy"),
    "an archive": (archive(DEV), r"dev_ims\.npy"),
    "no features": (remove(DEV), r"missing: .*dev_ims\.npy"),
    "copies that differ": (differ, r"dev_ims\.npy: rows 5 and 6 differ"),
    "ids given twice": (lines("dev_ids.txt", 1, 1), r"dev_ids\.txt: '1' occurs twice"),
    "too many ids": (lines("dev_ids.txt", 1, 2, 3), "3 ids"),
    "an empty caption": (lines("dev_caps.txt", "a", " "), r"dev_caps\.txt, line 2: the caption is empty"),
    "a caption too many": (lines("dev_caps.txt", *["a"] * 11), r"dev_caps\.txt has 11 captions"),
    "no captions": (lines("dev_caps.txt"), "dev_"),
    "captions of bytes": (write("dev_caps.txt", b"a\nb\xff\n"), r"dev_caps\.txt, line 2: byte 0xff is not"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_files_are_named_in_one_line(case: str, tmp_path: Path) -> None:
    damage, message = WRONG[case]
    damage(write_regions(tmp_path))
    assert re.search(message, refused(read, tmp_path))


def test_rows_of_several_files_are_one_array(tmp_path: Path) -> None:
    parts = [np.random.default_rng(0).random((length, 2, 3)) for length in (4, 1, 3)]
    paths = [tmp_path / f"{part}.npy" for part in range(3)]
    for path, part in zip(paths, parts, strict=True):
        np.save(path, part)
    rows, whole = NpyRows(paths), np.concatenate(parts)
    assert (rows.shape, rows.dtype, len(rows)) == (whole.shape, whole.dtype, len(whole))
    for row in range(-8, 8):
        np.testing.assert_array_equal(rows[row], whole[row])
    np.testing.assert_array_equal(rows[1:7:2], whole[1:7:2])
    with pytest.raises(IndexError):
        rows[8]
    pickled = pickle.dumps(rows)
    assert len(pickled) < 1000  # file names, not numbers
    np.testing.assert_array_equal(pickle.loads(pickled)[5], whole[5])
