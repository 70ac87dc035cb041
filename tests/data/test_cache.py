import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from layouts import karpathy_entries, tiny_corpus, write_karpathy, write_mirflickr, write_nuswide, write_regions

from itmbench.data import cache
from itmbench.data.cache import cache_folder
from itmbench.data.corpus import Corpus, Features
from itmbench.data.datamodule import CorpusDataModule
from itmbench.data.datasets import KarpathyCaptions, MirFlickr25K, NUSWide, PrecomputedRegions
from itmbench.errors import InputError

SMALL: dict[str, Any] = {"queries": 1, "train": 2, "val": 1}


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ITMBENCH_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_karpathy(tmp_path / "data", karpathy_entries())


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is done that a cache spares: "read", "file_digest" and "listing"."""
    calls: list[str] = []

    def count(owner: Any, name: str) -> None:
        original = getattr(owner, name)

        def counting(*arguments: Any) -> Any:
            calls.append(name)
            return original(*arguments)

        monkeypatch.setattr(owner, name, counting)

    for dataset in (KarpathyCaptions, MirFlickr25K, NUSWide, PrecomputedRegions):
        count(dataset, "read")
    for name in ("file_digest", "listing"):
        count(cache, name)
    return calls


def captions(root: Path) -> Corpus:
    return KarpathyCaptions(root).corpus


def entries(pattern: str) -> list[Path]:
    return list(cache_folder("corpora").glob(pattern))


def assert_same(left: Corpus, right: Corpus) -> None:
    assert left.fingerprint == right.fingerprint
    for name in ("name", "image_ids", "text_ids", "label_names", "counts"):
        assert list(getattr(left, name)) == list(getattr(right, name))
    assert sorted(left.stages) == sorted(right.stages)
    assert (left.true_images is None) == (right.true_images is None)
    for rows, others in zip(left.true_images or (), right.true_images or (), strict=True):
        assert rows.tolist() == others.tolist()


def with_truth(root: Path) -> None:
    write_karpathy(root, karpathy_entries())
    (root / "truth.json").write_text(json.dumps({"102": [14, 11], "112": [15]}))
    (root / "hard_negatives.json").write_text(json.dumps([[11, 14]]))


@pytest.mark.parametrize(
    ("dataset", "write", "options"),
    [
        (KarpathyCaptions, lambda root: write_karpathy(root, karpathy_entries(), images=None), {}),
        (KarpathyCaptions, with_truth, {}),
        (MirFlickr25K, write_mirflickr, SMALL),
        (MirFlickr25K, write_mirflickr, SMALL | {"text": "bow"}),
        (NUSWide, write_nuswide, SMALL),
        (PrecomputedRegions, lambda root: write_regions(root, copies=5), {}),
    ],
)
def test_every_kind_of_corpus_is_restored(
    tmp_path: Path, calls: list[str], dataset: Any, write: Callable[[Path], None], options: dict[str, Any]
) -> None:
    write(tmp_path / "data")
    for _ in range(2):
        assert_same(dataset(tmp_path / "data", **options).corpus, dataset(tmp_path / "data", **options).read())
    assert calls.count("read") == 3  # two of them by this test


def test_masks_and_rows_of_features_are_restored() -> None:
    features = Features(np.arange(24.0).reshape(3, 2, 4), np.eye(3, 2) > 0, np.array([0, 1, 2, 2, 1, 0]))
    corpora = [tiny_corpus([1] * 6, images=features)]

    class Own(CorpusDataModule):
        def inputs(self) -> list[Path]:
            return []

        def read(self) -> Corpus:
            return corpora.pop()

    for _ in range(2):
        images = Own().corpus.images
        assert isinstance(images, Features) and images.digest() == features.digest()


def change_caption(root: Path) -> None:
    """Keep size and modification time."""
    source = root / "dataset_small.json"
    stat = source.stat()
    source.write_text(source.read_text().replace("Caption 104.", "Caption 999."))
    os.utime(source, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def delete_image(root: Path) -> None:
    (root / "images" / "2.jpg").unlink()


def grow_image(root: Path) -> None:
    with (root / "images" / "2.jpg").open("ab") as file:
        file.write(b"more")


def add_truth(root: Path) -> None:
    (root / "truth.json").write_text('{"102": [11]}')


def age(root: Path) -> None:
    """Give every file a modification time long past, like real data."""
    for path in root.rglob("*"):
        os.utime(path, (1e9, 1e9))


@pytest.mark.parametrize("settled", [False, True])
@pytest.mark.parametrize("change", [change_caption, delete_image, grow_image, add_truth])
def test_every_change_on_disk_is_noticed(root: Path, change: Callable[[Path], None], settled: bool) -> None:
    if settled:
        age(root)
    before = captions(root)
    change(root)
    if change is delete_image:
        (entry,) = entries("*.npz")
        entry.unlink()
        with pytest.raises(InputError, match=r"2\.jpg"):
            captions(root)
        assert not entries("*.npz")  # a failed read stores nothing
    else:
        assert captions(root).fingerprint != before.fingerprint


def test_unchanged_files_are_read_once(root: Path, calls: list[str]) -> None:
    age(root)
    captions(root)
    assert calls == ["file_digest", "listing", "read"]
    captions(root)
    assert len(calls) == 3
    os.utime(root / "dataset_small.json", (2e8, 2e8))  # another time but the same content: the entry still holds
    captions(root)
    assert calls[3:] == ["file_digest"]


def test_a_file_that_vanishes_from_a_subfolder_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "SAMPLE", 1)  # the sample does not hold it: the subfolder's time has to change
    root = write_nuswide(tmp_path / "data")
    age(root)
    NUSWide(root, **SMALL).corpus  # noqa: B018
    (root / "Flickr" / "zebra" / "0003_444.jpg").unlink()
    with pytest.raises(InputError, match=r"zebra/0003_444\.jpg"):
        NUSWide(root, **SMALL).corpus  # noqa: B018


def test_datasets_options_roots_and_versions_have_entries_of_their_own(
    tmp_path: Path, calls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_mirflickr(tmp_path / "data")
    strings = MirFlickr25K(root, **SMALL).corpus
    assert MirFlickr25K(root, text="bow", **SMALL).corpus.fingerprint != strings.fingerprint
    shutil.copytree(root, tmp_path / "copy")
    copy = MirFlickr25K(tmp_path / "copy", **SMALL).corpus
    assert copy.images.root == tmp_path / "copy" / "mirflickr"  # type: ignore[union-attr]
    monkeypatch.setattr(cache, "VERSION", cache.VERSION + 1)
    assert MirFlickr25K(root, batch_size=8, **SMALL).corpus.fingerprint == strings.fingerprint
    assert calls.count("read") == len(entries("*.npz")) == 4
    assert MirFlickr25K(root, batch_size=16, **SMALL).corpus.fingerprint == strings.fingerprint
    assert calls.count("read") == 4


def test_damaged_entries_are_rebuilt(root: Path) -> None:
    first = captions(root)
    (entry,) = entries("*.npz")
    good = entry.read_bytes()
    for at in range(0, len(good), 97):
        for damaged in (good[:at], good[:at] + bytes([good[at] ^ 0x55]) + good[at + 1 :]):
            entry.write_bytes(damaged)
            assert_same(captions(root), first)


@pytest.mark.parametrize("entry", [None, [3, 4], {"stamp": 1}, "", "[]"])
def test_a_damaged_index_is_rebuilt(root: Path, entry: Any) -> None:
    age(root)
    first = captions(root)
    (index,) = entries("*.json")
    good = index.read_text()
    index.write_text(entry if isinstance(entry, str) else json.dumps(dict.fromkeys(json.loads(good), entry)))
    assert_same(captions(root), first)
    assert index.read_text() == good


def test_a_cache_that_cannot_be_written_costs_only_time(root: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("in the way")
    with pytest.warns(UserWarning, match="cannot be written"):
        corpus = captions(root)
    assert len(corpus.image_ids) == 6


def test_the_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ITMBENCH_CACHE", "/somewhere")
    assert cache_folder("corpora") == Path("/somewhere/corpora")
    monkeypatch.setenv("ITMBENCH_CACHE", "~/elsewhere")
    assert cache_folder("corpora") == Path.home() / "elsewhere" / "corpora"
    monkeypatch.delenv("ITMBENCH_CACHE")
    assert cache_folder("mini") == Path.home() / ".cache" / "itmbench" / "mini"
