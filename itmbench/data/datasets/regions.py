"""Precomputed region features of Lee et al., "Stacked Cross Attention for Image-Text Matching" (SCAN), ECCV 2018.

36 bottom-up regions per image, 2,048 numbers per region.
"""

from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np

from itmbench.data.corpus import Corpus, Count, Features, NpyRows, Rows, Stage, Strings, map_npy
from itmbench.data.datamodule import CorpusDataModule
from itmbench.data.reading import read_lines, require, require_finite, require_unique
from itmbench.errors import InputError
from itmbench.files import real_path

COPIES_CHECKED = 32
"""How many images that are stored once per caption are compared with their copies."""
PUBLISHED = {
    "flickr30k-regions": {"captions": 155_070, "train images": 29_000, "val images": 1_014, "test images": 1_000}
}


class PrecomputedRegions(CorpusDataModule):
    """Region features with captions as SCAN and its successors distribute them (``f30k_precomp``, ``coco_precomp``).

    ``{train,dev,test}_ims.npy`` `[N, 36, 2048]` stay on disk. They hold an image once, or once per caption; the number
    of captions tells which. ``{train,dev,test}_caps.txt`` have one caption a line. ``{train,dev,test}_ids.txt`` are
    optional, with one id per image or one per caption (both are in circulation). Without them, or with one id per
    image, every ``captions_per_image`` consecutive captions belong to one image. ``coco_precomp`` has two test splits:
    ``test_*``, the first 1,000 test images, and ``testall_*``, all 5,000.

    Args:
        root: the folder of the files.
        test: the test split on disk, "test" or "testall"; by default the one whose captions are there, "test" if both.
        captions_per_image: captions of one image; unused where ``_ids.txt`` has one id per caption.
        name: the dataset's name.
        **kwargs: arguments of ``CorpusDataModule``.

    Raises:
        InputError: while reading: files are missing or damaged, features are not finite, the numbers of captions, ids
            and images contradict each other, a caption is empty, or copies of an image differ.
    """

    name: str

    def __init__(
        self,
        root: str | Path,
        captions_per_image: int = 5,
        name: str = "flickr30k-regions",
        test: Literal["test", "testall"] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.root, self.captions_per_image, self.name = real_path(root), captions_per_image, name
        only_all = (self.root / "testall_caps.txt").exists() and not (self.root / "test_caps.txt").exists()
        self.test = test or ("testall" if only_all else "test")
        self.splits = {"train": "train", "dev": "val", self.test: "test"}
        """Names of the splits on disk and in the corpus."""

    def inputs(self) -> list[Path]:
        endings = ("caps.txt", "ids.txt", "ims.npy")
        return [self.root / f"{split}_{ending}" for ending in endings for split in self.splits]

    def read(self) -> Corpus:
        arrays = {split: self.root / f"{split}_ims.npy" for split in self.splits}
        captions = {split: self.root / f"{split}_caps.txt" for split in self.splits}
        names = ",".join(self.splits)
        require([*arrays.values(), *captions.values()], f"{{{names}}}_ims.npy and {{{names}}}_caps.txt")
        for path in arrays.values():
            require_finite(str(path), map_npy(path))
        array = NpyRows(list(arrays.values()))
        starts = np.cumsum([0, *array.lengths])

        image_ids, texts, text_ids, rows, owners, images_before = [], [], [], [], [], [0]
        for split, (start, end) in zip(self.splits, pairwise(starts), strict=True):
            lines = _captions(captions[split])
            ids, stored, owner = _pairing(self.root, split, len(lines), int(end - start), self.captions_per_image)
            if end - start > len(ids):
                _check_copies(array, int(start), stored, owner, arrays[split])
            image_ids += [f"{split}/{image_id}" for image_id in ids]
            text_ids += [f"{split}/{line}" for line in range(len(lines))]
            texts += lines
            rows.append(start + stored)
            owners.append(images_before[-1] + owner)
            images_before.append(images_before[-1] + len(ids))

        members = {
            name: np.arange(*span) for name, span in zip(self.splits.values(), pairwise(images_before), strict=True)
        }
        return Corpus(
            name=self.name,
            image_ids=image_ids,
            images=Features(array, rows=np.concatenate(rows)),
            text_ids=text_ids,
            texts=Strings(texts),
            text_to_image=np.concatenate(owners),
            train=members["train"],
            stages={split: Stage(members[split], members[split]) for split in ("val", "test")},
            counts=_counts(self.name, members, len(texts)),
        )


def _captions(path: Path) -> list[str]:
    lines = [line.strip() for line in read_lines(path)]
    empty = next((number for number, line in enumerate(lines, start=1) if not line), None)
    if empty is not None:
        raise InputError(f"{path}, line {empty}: the caption is empty; restore the original file")
    return lines


def _pairing(
    root: Path, split: str, captions: int, stored: int, captions_per_image: int
) -> tuple[list[str], Rows, Rows]:
    """Return the image ids of a split, the stored row of each image, and the image of each caption."""
    path = root / f"{split}_ids.txt"
    ids = [line.strip() for line in read_lines(path)] if path.exists() else None
    if ids is not None and len(ids) == captions:
        image_of = {image_id: row for row, image_id in enumerate(dict.fromkeys(ids))}
        owner = np.array([image_of[image_id] for image_id in ids], dtype=np.int64)
        images, first_caption = len(image_of), np.unique(owner, return_index=True)[1]
        names = list(image_of)
    else:
        images = captions // captions_per_image
        first_caption = np.arange(images) * captions_per_image
        owner = np.arange(captions) // captions_per_image
        names = [str(row) for row in range(images)] if ids is None else ids
        if images * captions_per_image != captions or len(names) != images:
            raise InputError(
                f"{root}: {split}_caps.txt has {captions:,} captions and {split}_ids.txt {len(names):,} ids, but an "
                f"image has {captions_per_image} captions; restore the files or set captions_per_image"
            )
        require_unique(names, str(path))
    if stored == images:
        return names, np.arange(images), owner
    if stored == captions:
        return names, first_caption, owner
    raise InputError(
        f"{root}: {split}_ims.npy has {stored:,} rows for {images:,} images with {captions:,} captions; expected one "
        "row per image or per caption; restore the files or set captions_per_image"
    )


def _check_copies(array: NpyRows, first: int, stored: Rows, owner: Rows, path: Path) -> None:
    """Raise an InputError if evenly spaced images that are stored once per caption differ from their copies."""
    for image in np.unique(np.linspace(0, len(stored) - 1, COPIES_CHECKED).astype(np.int64)):
        for row in np.flatnonzero(owner == image):
            if not np.array_equal(array[first + row], array[first + stored[image]]):
                raise InputError(
                    f"{path}: rows {stored[image]} and {row} differ although their captions describe one image; "
                    "restore the file or set captions_per_image"
                )


def _counts(name: str, members: dict[str, Rows], captions: int) -> list[Count]:
    published = PUBLISHED.get(name, {})
    found = {"captions": captions} | {f"{split} images": len(rows) for split, rows in members.items()}
    return [Count(what, number, published.get(what)) for what, number in found.items()]
