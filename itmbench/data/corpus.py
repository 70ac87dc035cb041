"""A corpus: images, texts, the map between them, labels and splits."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tokenize import TokenError
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from itmbench.data.pictures import read_picture
from itmbench.errors import InputError
from itmbench.files import digest, file_digest

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class ImageFiles:
    """Image files on disk."""

    root: Path
    names: Sequence[str]  # path of every image below ``root``
    sizes: Rows  # of every file in bytes `[Ni]`, part of the corpus fingerprint

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, row: int) -> Image.Image:
        """Decode the image of a row to RGB; errors as `itmbench.data.pictures.read_picture`."""
        return read_picture(self.root / self.names[row])

    def key(self, row: int) -> str:
        """What identifies the content of a row without reading it: name and size of the file."""
        return f"{self.names[row]}\0{self.sizes[row]}"

    def digest(self) -> str:
        """Hash of file names and sizes; pixels are not read."""
        return digest("\n".join(self.names), self.sizes)


class NpyRows:
    """Rows of one or more memory-mapped ``.npy`` files as one array; pickles file names, not data.

    Args:
        paths: the files; all rows have the same shape and type.

    Attributes:
        lengths: number of rows of each file.
        shape: shape of the concatenated array.
        dtype: type of the numbers.
        digests: known hashes of files, by path, which need not be read again for `digest`.

    Raises:
        InputError: a file is missing or damaged, or its rows differ from those of the first file.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = list(paths)
        self._arrays = [map_npy(path) for path in self.paths]
        self.lengths = [len(array) for array in self._arrays]
        self._ends = np.cumsum(self.lengths)
        first = self._arrays[0]
        for path, array in zip(self.paths, self._arrays, strict=True):
            if array.shape[1:] != first.shape[1:] or array.dtype != first.dtype:
                raise InputError(
                    f"{path}: rows are {array.dtype} {array.shape[1:]}, but those of {self.paths[0]} are "
                    f"{first.dtype} {first.shape[1:]}; use files of one extraction"
                )
        self.dtype = first.dtype
        self.shape = (int(self._ends[-1]), *first.shape[1:])
        self.digests: dict[str, str] = {}

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> NDArray[Any]:
        """One row, or the rows of a slice, as an array."""
        index = range(len(self))[rows]
        if isinstance(index, range):
            return np.stack([self[row] for row in index])
        part = int(np.searchsorted(self._ends, index, side="right"))
        return np.asarray(self._arrays[part][index - self._ends[part]])  # a negative index, from the end of the file

    def digest(self) -> str:
        """Hash of the files' contents."""
        return "\n".join(self.digests.get(str(path)) or file_digest(path) for path in self.paths)

    def __reduce__(self) -> tuple[type["NpyRows"], tuple[list[Path]]]:
        return NpyRows, (self.paths,)


NPY_ERRORS = (
    *(OSError, ValueError, EOFError, BadZipFile),
    *(SyntaxError, TokenError),  # headers are Python literals
    *(OverflowError, TypeError, MemoryError),  # headers may claim an impossible shape
)
"""What numpy raises for a damaged ``.npy`` file."""


def map_npy(path: Path) -> NDArray[Any]:
    """Map the array of a ``.npy`` file into memory.

    Raises:
        InputError: the file cannot be read or does not hold one array of numbers.
    """
    try:
        array = np.load(path, mmap_mode="r")
    except NPY_ERRORS as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: not a readable .npy array of numbers ({reason}); save it with numpy.save") from None
    if not isinstance(array, np.ndarray):
        raise InputError(f"{path}: holds an archive of arrays; save one array with numpy.save")
    if array.ndim == 0:
        raise InputError(f"{path}: holds a single number; save an array with one row an item")
    return array


@dataclass(frozen=True)
class Features:
    """Precomputed features instead of pixels or words, usually memory-mapped."""

    array: NDArray[Any] | NpyRows  # `[N, D]`, or `[N, T, D]` for T tokens (regions, words) per item
    mask: NDArray[np.bool_] | None = None  # `[N, T]`, true where a token is real; None if all are
    rows: Rows | None = None  # row of ``array`` that holds each item `[N]`; None if item i is row i

    def __len__(self) -> int:
        return len(self.array if self.rows is None else self.rows)

    def __getitem__(self, row: int) -> tuple[NDArray[np.float32], NDArray[np.bool_] | None]:
        """Features `[D]` or `[T, D]` of an item as float32, and its mask `[T]` or None."""
        row = row if self.rows is None else self.rows[row]
        mask = None if self.mask is None else np.asarray(self.mask[row])
        return np.asarray(self.array[row], dtype=np.float32), mask

    def digest(self) -> str:
        """Hash of numbers, masks and row map."""
        array = self.array.digest() if isinstance(self.array, NpyRows) else self.array
        return digest(array, self.mask, self.rows)


@dataclass(frozen=True)
class Strings:
    """Texts as strings: captions, or the tags of an image joined by spaces."""

    strings: Sequence[str]

    def __len__(self) -> int:
        return len(self.strings)

    def __getitem__(self, row: int) -> str:
        return self.strings[row]

    def digest(self) -> str:
        return digest("\x1f".join(self.strings))


@dataclass(frozen=True)
class Stage:
    """Queries and gallery of an evaluation as image rows; texts follow their images."""

    queries: Rows  # images that, with their texts, are the queries of both directions
    gallery: Rows  # images that, with their texts, are searched; equal to ``queries`` for caption retrieval

    @cached_property
    def images(self) -> Rows:
        """Union of queries and gallery in ascending order, which is the order of embeddings in an evaluation."""
        return np.union1d(self.queries, self.gallery)


@dataclass(frozen=True)
class Count:
    """A number counted on disk, and the published one or None."""

    what: str
    found: int
    published: int | None = None


@dataclass(frozen=True, eq=False)
class Corpus:
    """Images and texts, with pairs, labels, splits and known truth.

    Args:
        name: the dataset and its variant.
        image_ids: a stable id of every image `[Ni]`.
        images: pixels or features of every image `[Ni]`; None if the copy on disk has only texts and labels.
        text_ids: a stable id of every text `[Nt]`.
        texts: strings or features of every text `[Nt]`.
        text_to_image: row of the image that each text belongs to `[Nt]`.
        train: image rows to train on.
        stages: "val" and "test".
        labels: multi-hot labels `[Ni, C]`, or None if only pairs are known.
        label_names: name of every label `[C]`.
        true_images: for each text, rows of all images that it is true of, including its own; an empty array if its
            truth is unknown. None if the truth of no text is known.
        hard_negatives: (image, near twin) rows `[M, 2]`.
        wrong_pairs: (text, image) rows: training texts, and the wrong image that each is trained with `[M, 2]`.
        wrong_labels: (image, image) rows: training images, and the image whose labels each is trained with `[M, 2]`.
        counts: numbers on disk and published ones.
        groups: number of each image's group `[Ni]`; statistics resample a group as one. None if each image stands for
            itself. Changes no metric and is not part of the fingerprint.
        missing: images that the dataset lists, the copy on disk lacks and the corpus therefore leaves out; not part of
            the fingerprint, which covers what remains.
    """

    name: str
    image_ids: Sequence[str]
    images: ImageFiles | Features | None
    text_ids: Sequence[str]
    texts: Strings | Features
    text_to_image: Rows
    train: Rows
    stages: dict[str, Stage]
    labels: NDArray[np.uint8] | None = None
    label_names: Sequence[str] = ()
    true_images: Sequence[Rows] | None = None
    hard_negatives: Rows | None = None
    wrong_pairs: Rows | None = None
    wrong_labels: Rows | None = None
    counts: Sequence[Count] = ()
    groups: Rows | None = None
    missing: Sequence[str] = ()

    def __post_init__(self) -> None:
        images, texts = len(self.image_ids), len(self.text_ids)
        of_images, of_texts = ("images", "labels", "groups"), ("texts", "text_to_image", "true_images")
        expected = dict.fromkeys(of_images, images) | dict.fromkeys(of_texts, texts)
        for what, number in expected.items():
            items = getattr(self, what)
            if items is not None and len(items) != number:
                raise InputError(f"{self.name}: {what} has {len(items)} rows, but there are {number} ids")
        stages = [rows for stage in self.stages.values() for rows in (stage.queries, stage.gallery)]
        used = (self.text_to_image, self.train, *stages)
        if any(len(rows) and not 0 <= rows.min() <= rows.max() < images for rows in used):
            raise InputError(
                f"{self.name}: a split or the text-to-image map names an image row outside 0..{images - 1}"
            )

    @cached_property
    def texts_of_image(self) -> list[Rows]:
        """Rows of each image's texts in ascending order `[Ni]`."""
        order = np.argsort(self.text_to_image, kind="stable")
        ends = np.cumsum(np.bincount(self.text_to_image, minlength=len(self.image_ids)))
        return np.split(order, ends[:-1])

    def texts_of(self, images: Rows) -> Rows:
        """Rows of all texts of the given images, image by image."""
        return np.concatenate([self.texts_of_image[i] for i in images]) if len(images) else np.empty(0, np.int64)

    @cached_property
    def image_trained_with(self) -> Rows:
        """Row of the image that each text is trained with `[Nt]`: its own, except in wrong pairs."""
        images = self.text_to_image.copy()
        if self.wrong_pairs is not None:
            images[self.wrong_pairs[:, 0]] = self.wrong_pairs[:, 1]
        return images

    @cached_property
    def labels_trained_with(self) -> NDArray[np.uint8] | None:
        """Labels that each image is trained with `[Ni, C]`: its own, except for wrong labels. None without labels."""
        if self.labels is None or self.wrong_labels is None:
            return self.labels
        labels = self.labels.copy()
        labels[self.wrong_labels[:, 0]] = self.labels[self.wrong_labels[:, 1]]
        return labels

    @cached_property
    def fingerprint(self) -> str:
        """Hash of everything that can change a result: ids, contents, map, labels, splits, truth and noise."""
        stages = [rows for key in sorted(self.stages) for rows in (self.stages[key].queries, self.stages[key].gallery)]
        truth = None if self.true_images is None else np.concatenate([np.append(rows, -1) for rows in self.true_images])
        wrong = [] if self.wrong_pairs is None else [self.wrong_pairs]
        wrong_labels = () if self.wrong_labels is None else ("wrong labels", self.wrong_labels)
        return digest(
            "\n".join(self.image_ids),
            "\n".join(self.text_ids),
            "" if self.images is None else self.images.digest(),
            self.texts.digest(),
            "\n".join(self.label_names),
            self.text_to_image,
            self.train,
            *stages,
            self.labels,
            truth,
            self.hard_negatives,
            *wrong,
            *wrong_labels,
        )
