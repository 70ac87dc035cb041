"""Features of your own: a folder of ``.npy`` arrays with one row per image or text, and ``splits.json``.

| file | content |
|---|---|
| ``images.npy`` | numbers `[Ni, Dv]`, or `[Ni, R, Dv]` for R regions per image |
| ``texts.npy`` | numbers `[Nt, Dt]`, or `[Nt, L, Dt]` for L words per text |
| ``image_mask.npy``, ``text_mask.npy`` | optional, `[Ni, R]` and `[Nt, L]`: 1 where a region or word is real |
| ``text_to_image.npy`` | `[Nt]`, the image row of each text |
| ``labels.npy`` | optional, `[Ni, C]` of 0 and 1, or one integer class per image, `[Ni]` or `[Ni, 1]` |
| ``splits.json`` | image rows as ``{"train": [...], "query": [...], "gallery": [...]}``; ``"val"`` is optional |
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from itmbench.data.corpus import Corpus, Count, Features, NpyRows, Rows, Stage, map_npy
from itmbench.data.datamodule import CorpusDataModule
from itmbench.data.reading import read_json, require, require_finite, require_shared_labels, unmatched_queries
from itmbench.errors import InputError
from itmbench.files import real_path

REQUIRED = ("images.npy", "texts.npy", "text_to_image.npy", "splits.json")
OPTIONAL = ("image_mask.npy", "text_mask.npy", "labels.npy")
LAYOUT = "images.npy, texts.npy, text_to_image.npy and splits.json"
DISJOINT = (("train", "val"), ("train", "query"), ("val", "query"))
"""Splits that must not share an image. The gallery may hold training and validation items, as published ones do."""


class FeatureFolder(CorpusDataModule):
    """Features of your own: a folder of ``images.npy``, ``texts.npy``, ``text_to_image.npy`` and ``splits.json``.

    Features stay on disk, and their rows are the ids. Without ``val``, a fixed tenth of the training images (at least
    one) validates. Validation queries search the remaining training images if there are labels, and otherwise each
    other.

    Args:
        root: the folder.
        name: the dataset's name; by default that of the folder.
        batch_size: pairs in a training batch on each device; the default suits small datasets.
        num_workers: loader processes; by default none, because reading rows takes less time than starting processes.
        **kwargs: arguments of ``CorpusDataModule``.

    Raises:
        InputError: while reading: a file is missing or damaged, an array has the wrong shape or values, files
            contradict each other, a split is empty, names an image twice or overlaps one that it must not overlap.
    """

    name: str

    def __init__(
        self,
        root: str | Path,
        name: str | None = None,
        batch_size: int = 32,
        num_workers: int | None = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(batch_size=batch_size, num_workers=num_workers, **kwargs)
        self.root = real_path(root)
        self.name = name or self.root.name

    def inputs(self) -> list[Path]:
        return [self.root / name for name in (*REQUIRED, *OPTIONAL)]

    def read(self) -> Corpus:
        root = self.root
        require([root / name for name in REQUIRED], LAYOUT)
        unknown = sorted({path.name for path in root.glob("*.npy")} - {*REQUIRED, *OPTIONAL})
        if unknown:  # a misspelt mask must not pass for no mask
            raise InputError(
                f"{root / unknown[0]}: does not belong in a feature folder, whose optional files are "
                f"{', '.join(OPTIONAL)}; rename or move it"
            )
        images, texts = (_features(root / f"{what}s.npy", root / f"{what}_mask.npy") for what in ("image", "text"))
        owner = _owners(root / "text_to_image.npy", len(texts), len(images))
        labels, label_names = _labels(root / "labels.npy", len(images))
        splits = _splits(root / "splits.json", len(images))
        _check_texts(root, splits, owner)
        if labels is None and not np.array_equal(splits["query"], splits["gallery"]):
            raise InputError(
                f"{root / 'splits.json'}: without labels.npy only a query's own pair is relevant, so query and gallery "
                "must hold the same images; make them equal or add labels.npy"
            )
        train, val = (splits["train"], splits["val"]) if "val" in splits else _hold_out(splits["train"])
        stages = {
            "val": Stage(val, val if labels is None else train),
            "test": Stage(splits["query"], splits["gallery"]),
        }
        if labels is not None:
            require_shared_labels(labels, {"test": stages["test"]}, root / "labels.npy")
        return Corpus(
            name=self.name,
            image_ids=[str(row) for row in range(len(images))],
            images=images,
            text_ids=[str(row) for row in range(len(texts))],
            texts=texts,
            text_to_image=owner,
            train=train,
            stages=stages,
            labels=labels,
            label_names=label_names,
            counts=_counts(images, texts, labels, splits, train, val),
        )


def _given(path: Path) -> bool:
    """Whether a file exists, even if only as a broken link, which must not pass for no file."""
    return path.exists() or path.is_symlink()


def _array(path: Path, kinds: str, what: str, *ranks: int) -> NDArray[Any]:
    """Map an array into memory and check its type and number of dimensions; it must not be empty."""
    array = map_npy(path)
    if array.dtype.kind not in kinds:
        raise InputError(f"{path}: holds {array.dtype}; expected {what}")
    if array.ndim not in ranks or array.size == 0:
        raise InputError(f"{path}: has shape {list(array.shape)}; expected {what}")
    return array


def _features(path: Path, mask_path: Path) -> Features:
    array = _array(path, "buif", "one row of numbers per item [N, D], or T rows per item [N, T, D]", 2, 3)
    require_finite(str(path), array)
    if not _given(mask_path):
        return Features(NpyRows([path]))
    mask = _array(mask_path, "buif", "1 for real tokens and 0 for padding [N, T]", 2)
    if array.ndim != 3 or mask.shape != array.shape[:2]:
        raise InputError(
            f"{mask_path}: has shape {list(mask.shape)}, but {path.name} has {list(array.shape)}; "
            "expected [N, T] for [N, T, D]"
        )
    return Features(NpyRows([path]), mask=_binary(mask_path, mask).astype(bool))


def _binary(path: Path, array: NDArray[Any]) -> NDArray[np.uint8]:
    odd = np.flatnonzero(((array != 0) & (array != 1)).any(axis=1))
    if len(odd):
        raise InputError(f"{path}: row {odd[0]} holds a number other than 0 and 1; store only 0 and 1")
    return array.astype(np.uint8)


def _integers(path: Path, array: NDArray[Any], what: str) -> Rows:
    """A vector `[N]` as non-negative integers."""
    with np.errstate(invalid="ignore"):
        whole = array.astype(np.int64)
        odd = np.flatnonzero((whole != array) | (whole < 0))
    if len(odd):
        raise InputError(f"{path}: row {odd[0]} holds {array[odd[0]]}, not {what}; store integers, from 0 on")
    return whole


def _owners(path: Path, texts: int, images: int) -> Rows:
    owner = _integers(path, _array(path, "uif", "one image row per text [Nt]", 1), "an image row")
    if len(owner) != texts:
        raise InputError(f"{path}: has {len(owner):,} rows, but texts.npy has {texts:,}; give one image row per text")
    beyond = np.flatnonzero(owner >= images)
    if len(beyond):
        raise InputError(
            f"{path}: row {beyond[0]} names image {owner[beyond[0]]}, but images.npy has the rows 0 to {images - 1}; "
            "count images from 0"
        )
    return owner


def _labels(path: Path, images: int) -> tuple[NDArray[np.uint8] | None, list[str]]:
    """Multi-hot labels `[Ni, C]` and their names; classes become one column for each that occurs, in order."""
    if not _given(path):
        return None, []
    array = _array(path, "buif", "0 and 1 for every label [Ni, C], or one integer class per image [Ni]", 1, 2)
    if len(array) != images:
        raise InputError(f"{path}: has {len(array):,} rows, but images.npy has {images:,}; give one row per image")
    if array.ndim == 2 and array.shape[1] > 1:
        return _binary(path, array), [str(column) for column in range(array.shape[1])]
    classes, column = np.unique(_integers(path, array.reshape(-1), "a class"), return_inverse=True)
    return np.eye(len(classes), dtype=np.uint8)[column], [str(number) for number in classes]


def _splits(path: Path, images: int) -> dict[str, Rows]:
    """Image rows of every split in ascending order."""
    content = read_json(path, unique=True)
    if not isinstance(content, dict):
        raise InputError(f"{path}: not an object; expected {{train: [...], query: [...], gallery: [...]}}")
    unknown = sorted(set(content) - {"train", "val", "query", "gallery"})
    missing = [key for key in ("train", "query", "gallery") if key not in content]
    if unknown or missing:
        what = f"unknown key {unknown[0]!r}" if unknown else f"no {missing[0]!r}"
        raise InputError(f"{path}: {what}; expected train, query, gallery and optionally val")
    splits = {key: _split(path, key, rows, images) for key, rows in content.items()}
    for left, right in DISJOINT:
        shared = np.intersect1d(splits.get(left, []), splits.get(right, []))
        if len(shared):
            raise InputError(
                f"{path}: {left} and {right} share {len(shared):,} images, the first is {int(shared[0])}; "
                "remove them from one of the two"
            )
    if "val" not in splits and len(splits["train"]) < 2:
        raise InputError(f"{path}: train has one image, too few to take val from; add images or name val")
    return splits


def _split(path: Path, key: str, rows: Any, images: int) -> Rows:
    if not isinstance(rows, list) or not rows:
        raise InputError(f"{path}: {key} is not a list of at least one image row; list rows, from 0 on")
    seen: set[int] = set()
    for index, row in enumerate(rows):
        if type(row) is not int or not 0 <= row < images:
            raise InputError(f"{path}: {key}[{index}] is {row!r}, not an image row from 0 to {images - 1}; correct it")
        if row in seen:
            raise InputError(f"{path}: {key} names image {row} twice; name it once")
        seen.add(row)
    return np.sort(np.array(rows, dtype=np.int64))


def _check_texts(root: Path, splits: dict[str, Rows], owner: Rows) -> None:
    for key, rows in splits.items():
        bare = np.setdiff1d(rows, owner)
        if len(bare):
            raise InputError(
                f"{root / 'splits.json'}: {key} names {len(bare):,} images without a text in text_to_image.npy, "
                f"the first is {bare[0]}; leave them out or add texts"
            )


def _hold_out(train: Rows) -> tuple[Rows, Rows]:
    """Split training rows into those that stay and a tenth that validates, by an order drawn as in `label_split`."""
    order = np.argsort(np.random.PCG64(0).random_raw(len(train)), kind="stable")
    stay, held = np.split(train[order], [len(train) - max(1, len(train) // 10)])
    return np.sort(stay), np.sort(held)


def _counts(
    images: Features, texts: Features, labels: NDArray[np.uint8] | None, splits: dict[str, Rows], train: Rows, val: Rows
) -> list[Count]:
    used = np.unique(np.concatenate(list(splits.values())))
    counts = [
        Count("images", len(images)),
        Count("numbers per image token", images.array.shape[-1]),
        Count("texts", len(texts)),
        Count("numbers per text token", texts.array.shape[-1]),
        Count("train images", len(train)),
        Count("val images" if "val" in splits else "val images, taken from train", len(val)),
        Count("query images", len(splits["query"])),
        Count("gallery images", len(splits["gallery"])),
        Count("images in no split", len(images) - len(used)),
    ]
    for what, items in (("images without a region", images), ("texts without a word", texts)):
        if items.mask is not None:
            counts.append(Count(what, int((~items.mask.any(axis=1)).sum())))
    if labels is not None:
        counts += [Count("labels", labels.shape[1]), Count("images without a label", int((~labels.any(axis=1)).sum()))]
        counts.append(
            Count(
                "queries that share no label with another gallery image",
                unmatched_queries(labels, Stage(splits["query"], splits["gallery"])),
            )
        )
    return counts
