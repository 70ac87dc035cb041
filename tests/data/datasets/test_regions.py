import pickle
from pathlib import Path

import numpy as np
import pytest
from layouts import write_lines, write_regions

from itmbench.data.corpus import Corpus, Features, NpyRows
from itmbench.data.datasets.regions import read_regions
from itmbench.errors import InputError


def features(corpus: Corpus) -> list[float]:
    assert isinstance(corpus.images, Features)
    return [corpus.images[row][0][0, 0] for row in range(len(corpus.images))]


@pytest.mark.parametrize("copies", [1, 5])
def test_images_stored_once_or_five_times_read_the_same(tmp_path: Path, copies: int) -> None:
    corpus = read_regions(write_regions(tmp_path, copies))
    assert features(corpus) == list(range(9))
    assert corpus.texts[23] == "image 4 caption 3"
    assert corpus.text_to_image.tolist() == np.repeat(np.arange(9), 5).tolist()
    assert corpus.train.tolist() == [0, 1, 2, 3]
    assert corpus.stages["val"].queries.tolist() == [4, 5]
    assert corpus.stages["test"].gallery.tolist() == [6, 7, 8]
    assert corpus.image_ids[:5] == ["train/0", "train/1", "train/2", "train/3", "dev/0"]
    assert corpus.text_ids[20] == "dev/0"
    assert {count.what: count.published for count in corpus.counts}["captions"] == 155_070


def test_ids_of_images_become_ids(tmp_path: Path) -> None:
    root = write_regions(tmp_path)
    write_lines(root / "test_ids.txt", [70, 71, 72])
    assert read_regions(root).image_ids[-3:] == ["test/70", "test/71", "test/72"]


@pytest.mark.parametrize("copies", [1, 5])
def test_ids_of_captions_say_which_image(tmp_path: Path, copies: int) -> None:
    root = write_regions(tmp_path, copies)
    owners = [70] * 5 + [71] * 5 + [72] * 5
    write_lines(root / "test_ids.txt", owners)
    assert read_regions(root).text_to_image.tolist() == np.repeat(np.arange(9), 5).tolist()
    if copies == 1:  # runs of unequal length, as only the ids can tell
        write_lines(root / "test_ids.txt", [70] * 3 + [71] * 7 + [72] * 4 + [70])
        assert read_regions(root).text_to_image[-15:].tolist() == [6] * 3 + [7] * 7 + [8] * 4 + [6]


def test_one_caption_an_image(tmp_path: Path) -> None:
    root = write_regions(tmp_path)
    for split, images in (("train", 4), ("dev", 2), ("test", 3)):
        write_lines(root / f"{split}_caps.txt", [f"caption {row}" for row in range(images)])
    assert read_regions(root, captions_per_image=1).text_to_image.tolist() == list(range(9))
    with pytest.raises(InputError, match="captions_per_image"):
        read_regions(root)


def test_copies_that_differ_are_an_error(tmp_path: Path) -> None:
    root = write_regions(tmp_path, copies=5)
    array = np.load(root / "dev_ims.npy")
    array[6] += 1
    np.save(root / "dev_ims.npy", array)
    with pytest.raises(InputError, match=r"dev_ims\.npy: rows 5 and 6 differ"):
        read_regions(root)


def test_contradictions_are_named(tmp_path: Path) -> None:
    root = write_regions(tmp_path)
    np.save(root / "dev_ims.npy", np.zeros((3, 3, 4), np.float32))
    with pytest.raises(InputError, match=r"dev_ims\.npy has 3 rows where 10 captions are of 2 images"):
        read_regions(root)
    np.save(root / "dev_ims.npy", np.zeros((2, 3, 5), np.float32))
    with pytest.raises(InputError, match=r"dev_ims\.npy: rows are float32 \(3, 5\) where"):
        read_regions(root)
    (root / "dev_ims.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(InputError, match=r"dev_ims\.npy: not a readable \.npy array"):
        read_regions(root)
    (root / "dev_ims.npy").unlink()
    with pytest.raises(InputError, match=r"missing: .*dev_ims\.npy"):
        read_regions(root)


def test_bad_texts_and_ids_are_named(tmp_path: Path) -> None:
    root = write_regions(tmp_path)
    write_lines(root / "dev_ids.txt", [1, 1])
    with pytest.raises(InputError, match=r"dev_ids\.txt: '1' occurs twice"):
        read_regions(root)
    write_lines(root / "dev_ids.txt", [1, 2, 3])
    with pytest.raises(InputError, match="3 ids"):
        read_regions(root)
    write_lines(root / "dev_caps.txt", ["a", " "])
    with pytest.raises(InputError, match=r"dev_caps\.txt, line 2: the caption is empty"):
        read_regions(root)
    (root / "dev_caps.txt").write_bytes(b"a\nb\xff\n")
    with pytest.raises(InputError, match=r"dev_caps\.txt, line 2: byte 0xff is not UTF-8"):
        read_regions(root)


def test_rows_of_several_files_are_one_array(tmp_path: Path) -> None:
    parts = [np.random.default_rng(0).random((length, 2, 3)) for length in (4, 1, 3)]
    paths = [tmp_path / f"{at}.npy" for at in range(3)]
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
    assert len(pickled) < 1000
    np.testing.assert_array_equal(pickle.loads(pickled)[5], whole[5])
