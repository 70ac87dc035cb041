import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from layouts import karpathy_entries, write_karpathy, write_lines, write_mirflickr, write_nuswide, write_regions

from itmbench.data import cache
from itmbench.data.cache import cached, default_cache_dir
from itmbench.data.corpus import Corpus, Features
from itmbench.data.datasets.captions import read_karpathy
from itmbench.data.datasets.mirflickr import read_mirflickr
from itmbench.data.datasets.nuswide import read_nuswide
from itmbench.data.datasets.regions import read_regions
from itmbench.data.reader import Reader
from itmbench.errors import InputError

SMALL = {"queries": 1, "train": 2, "val": 1}


def assert_same(left: Corpus, right: Corpus) -> None:
    assert left.fingerprint == right.fingerprint
    for name in ("name", "image_ids", "text_ids", "label_names", "counts"):
        assert list(getattr(left, name)) == list(getattr(right, name))
    assert sorted(left.stages) == sorted(right.stages)
    assert (left.true_images is None) == (right.true_images is None)


class Counting(Reader[Any]):
    """A reader that counts how often it parses."""

    def __init__(self, reader: Reader[Any]) -> None:
        super().__init__(reader.read, reader.inputs)
        self.calls = 0

    def __call__(self, *args: Any, **kwargs: Any) -> Corpus:
        self.calls += 1
        return super().__call__(*args, **kwargs)


def with_truth(root: Path) -> Path:
    write_karpathy(root, karpathy_entries())
    (root / "truth.json").write_text(json.dumps({"102": [14, 11], "112": [15]}))
    (root / "hard_negatives.json").write_text(json.dumps([[11, 14]]))
    return root


@pytest.mark.parametrize(
    ("reader", "write", "options"),
    [
        (read_karpathy, lambda root: write_karpathy(root, karpathy_entries()), {}),
        (read_karpathy, lambda root: write_karpathy(root, karpathy_entries(), images=None), {}),
        (read_karpathy, with_truth, {}),
        (read_mirflickr, write_mirflickr, SMALL),
        (read_mirflickr, write_mirflickr, SMALL | {"text": "bow"}),
        (read_nuswide, write_nuswide, SMALL),
        (read_regions, lambda root: write_regions(root, copies=5), {}),
    ],
)
def test_every_kind_of_corpus_comes_back_as_it_was(
    tmp_path: Path, reader: Reader[Any], write: Callable[[Path], Path], options: dict[str, Any]
) -> None:
    root = write(tmp_path / "data")
    counting = Counting(reader)
    first = cached(counting, root, tmp_path / "cache", **options)
    again = cached(counting, root, tmp_path / "cache", **options)
    assert counting.calls == 1
    assert_same(first, reader(root, **options))
    assert_same(again, first)
    if again.true_images is not None and first.true_images is not None:
        assert [rows.tolist() for rows in again.true_images] == [rows.tolist() for rows in first.true_images]


def test_masks_and_rows_of_features_come_back(tmp_path: Path) -> None:
    corpus = read_karpathy(write_karpathy(tmp_path / "data", karpathy_entries()))
    features = Features(np.arange(24.0).reshape(3, 2, 4), np.eye(3, 2) > 0, np.array([0, 1, 2, 2, 1, 0]))

    def read(root: Path) -> Corpus:
        return Corpus(**{**vars(corpus), "images": features})

    reader = Counting(Reader(read, lambda root: []))
    for _ in range(2):
        images = cached(reader, tmp_path, tmp_path / "cache").images
        assert isinstance(images, Features)
        assert images.digest() == features.digest()
    assert reader.calls == 1


def change_caption(root: Path) -> None:
    source = root / "dataset_small.json"
    source.write_text(source.read_text().replace("Caption 104.", "Caption 999."))


def swap_same_size_same_date(root: Path) -> None:
    """Only the content tells the two apart; a moment after writing, the date proves nothing."""
    source = root / "dataset_small.json"
    stat = source.stat()
    change_caption(root)
    os.utime(source, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def delete_image(root: Path) -> None:
    (root / "images" / "2.jpg").unlink()


def grow_image(root: Path) -> None:
    with (root / "images" / "2.jpg").open("ab") as file:
        file.write(b"more")


def add_truth(root: Path) -> None:
    (root / "truth.json").write_text("{}")


@pytest.mark.parametrize("change", [change_caption, swap_same_size_same_date, delete_image, grow_image, add_truth])
def test_every_change_on_disk_is_noticed(tmp_path: Path, change: Callable[[Path], None]) -> None:
    root = write_karpathy(tmp_path / "data", karpathy_entries())
    reader = Counting(read_karpathy)
    before = cached(reader, root, tmp_path / "cache")
    change(root)
    if change is delete_image:
        with pytest.raises(InputError, match=r"2\.jpg"):
            cached(reader, root, tmp_path / "cache")
    else:
        after = cached(reader, root, tmp_path / "cache")
        if change is not add_truth:
            assert after.fingerprint != before.fingerprint
    assert reader.calls == 2


def test_options_and_roots_are_kept_apart(tmp_path: Path) -> None:
    root = write_mirflickr(tmp_path / "data")
    reader = Counting(read_mirflickr)
    strings = cached(reader, root, tmp_path / "cache", **SMALL)
    bags = cached(reader, root, tmp_path / "cache", text="bow", **SMALL)
    assert strings.fingerprint != bags.fingerprint
    shutil.copytree(root, tmp_path / "copy")
    copy = cached(reader, tmp_path / "copy", tmp_path / "cache", **SMALL)
    assert copy.images.root == tmp_path / "copy" / "mirflickr"  # type: ignore[union-attr]
    assert reader.calls == 3


def age(root: Path) -> None:
    """Gives every file a date long past, as data on disk has."""
    for path in root.rglob("*"):
        os.utime(path, (1e9, 1e9))


def test_contents_are_hashed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_karpathy(tmp_path / "data", karpathy_entries())
    age(root)
    hashed = []
    digest = cache.file_digest

    def counting_digest(path: Path) -> str:
        hashed.append(path)
        return digest(path)

    monkeypatch.setattr(cache, "file_digest", counting_digest)
    cached(read_karpathy, root, tmp_path / "cache")
    cached(read_karpathy, root, tmp_path / "cache")
    assert len(hashed) == 1
    os.utime(root / "dataset_small.json", (2e8, 2e8))  # another date: hashed again, and the entry still holds
    reader = Counting(read_karpathy)
    cached(reader, root, tmp_path / "cache")
    assert (len(hashed), reader.calls) == (2, 0)


@pytest.mark.parametrize("change", [delete_image, grow_image])
def test_folders_are_listed_once_and_changes_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path], None]
) -> None:
    root = write_karpathy(tmp_path / "data", karpathy_entries())
    age(root)
    listed = []
    digest = cache._listing_digest

    def counting_digest(folder: Path) -> tuple[str, dict[str, int]]:
        listed.append(folder)
        return digest(folder)

    monkeypatch.setattr(cache, "_listing_digest", counting_digest)
    before = cached(read_karpathy, root, tmp_path / "cache")
    cached(read_karpathy, root, tmp_path / "cache")
    assert len(listed) == 1
    change(root)
    if change is delete_image:
        with pytest.raises(InputError, match=r"2\.jpg"):
            cached(read_karpathy, root, tmp_path / "cache")
    else:
        assert cached(read_karpathy, root, tmp_path / "cache").fingerprint != before.fingerprint
    assert len(listed) == 2


def test_a_file_that_vanishes_from_a_subfolder_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "SAMPLE", 1)  # the first file of all: the date of the subfolder has to tell
    root = write_nuswide(tmp_path / "data")
    age(root)
    cached(read_nuswide, root, tmp_path / "cache", **SMALL)
    (root / "Flickr" / "zebra" / "0003_444.jpg").unlink()
    with pytest.raises(InputError, match=r"zebra/0003_444\.jpg"):
        cached(read_nuswide, root, tmp_path / "cache", **SMALL)


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04", b"not a cache"])
def test_a_damaged_entry_is_rebuilt(tmp_path: Path, damage: bytes) -> None:
    root = write_karpathy(tmp_path / "data", karpathy_entries())
    first = cached(read_karpathy, root, tmp_path / "cache")
    for path in (tmp_path / "cache").iterdir():
        path.write_bytes(damage)
    assert_same(cached(read_karpathy, root, tmp_path / "cache"), first)
    assert_same(cached(read_karpathy, root, tmp_path / "cache"), first)


@pytest.mark.parametrize("entry", [[3, 4, "digest"], {"stamp": 1}, None])
def test_an_index_of_another_form_is_rebuilt(tmp_path: Path, entry: Any) -> None:
    root = write_karpathy(tmp_path / "data", karpathy_entries())
    for path in root.rglob("*"):
        os.utime(path, (0, 0))
    first = cached(read_karpathy, root, tmp_path / "cache")
    (index,) = (tmp_path / "cache").glob("*.json")
    index.write_text(json.dumps(dict.fromkeys(json.loads(index.read_text()), entry)))
    assert_same(cached(read_karpathy, root, tmp_path / "cache"), first)


def test_a_truncated_or_flipped_entry_is_rebuilt(tmp_path: Path) -> None:
    root = write_karpathy(tmp_path / "data", karpathy_entries())
    first = cached(read_karpathy, root, tmp_path / "cache")
    (entry,) = (tmp_path / "cache").glob("*.npz")
    good = entry.read_bytes()
    for at in range(0, len(good), 97):
        entry.write_bytes(good[:at])
        assert_same(cached(read_karpathy, root, tmp_path / "cache"), first)
        entry.write_bytes(good[:at] + bytes([good[at] ^ 0x55]) + good[at + 1 :])
        assert_same(cached(read_karpathy, root, tmp_path / "cache"), first)


def test_an_entry_of_another_version_is_rebuilt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_karpathy(tmp_path / "data", karpathy_entries())
    reader = Counting(read_karpathy)
    cached(reader, root, tmp_path / "cache")
    monkeypatch.setattr(cache, "VERSION", cache.VERSION + 1)
    cached(reader, root, tmp_path / "cache")
    assert reader.calls == 2


def test_a_failed_read_leaves_nothing_behind(tmp_path: Path) -> None:
    root = write_karpathy(tmp_path / "data", karpathy_entries())
    (root / "images" / "2.jpg").unlink()
    with pytest.raises(InputError):
        cached(read_karpathy, root, tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("*.npz"))


def test_a_cache_that_cannot_be_written_costs_only_time(tmp_path: Path) -> None:
    root = write_karpathy(tmp_path / "data", karpathy_entries())
    (tmp_path / "file").write_text("in the way")
    with pytest.warns(UserWarning, match="cannot be written"):
        corpus = cached(read_karpathy, root, tmp_path / "file" / "cache")
    assert len(corpus.image_ids) == 6


def test_processes_may_share_a_folder(tmp_path: Path) -> None:
    root = write_karpathy(tmp_path / "data", karpathy_entries())
    write_lines(root / "note.txt", ["not part of the dataset"])
    program = (
        "import sys; from itmbench.data.cache import cached\n"
        "from itmbench.data.datasets.captions import read_karpathy\n"
        "for _ in range(30): print(cached(read_karpathy, sys.argv[1], sys.argv[2]).fingerprint)"
    )
    command = [sys.executable, "-c", program, str(root), str(tmp_path / "cache")]
    environment = os.environ | {"PYTHONPATH": str(Path(cache.__file__).parents[2])}
    workers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) for _ in range(2)]
    while any(worker.poll() is None for worker in workers):
        for entry in (tmp_path / "cache").glob("*.npz"):
            entry.unlink(missing_ok=True)
        time.sleep(0.01)
    printed = [worker.communicate()[0].split() for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0]
    assert set(printed[0] + printed[1]) == {read_karpathy(root).fingerprint}
    assert not list((tmp_path / "cache").glob("*.tmp"))


def test_where_entries_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ITMBENCH_CACHE", "/somewhere")
    assert default_cache_dir() == Path("/somewhere/corpora")
    monkeypatch.delenv("ITMBENCH_CACHE")
    assert default_cache_dir() == Path.home() / ".cache" / "itmbench" / "corpora"
