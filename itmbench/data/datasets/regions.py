"""Precomputed region features as SCAN and its successors ship them (``f30k_precomp``, ``coco_precomp``).

Lee et al., "Stacked Cross Attention for Image-Text Matching", ECCV 2018: 36 bottom-up regions an image, 2,048 numbers
a region.
"""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from itmbench.data.cache import cached
from itmbench.data.corpus import Corpus, Count, Features, NpyRows, Rows, Stage, Strings
from itmbench.data.datamodule import CorpusDataModule
from itmbench.data.reader import reads
from itmbench.data.reading import read_lines, require, require_unique
from itmbench.errors import InputError

# Name of a split on disk, and here.
SPLITS = {"train": "train", "dev": "val", "test": "test"}
# How many images that are stored once a caption are compared with their copies.
COPIES_CHECKED = 32
PUBLISHED = {
    "flickr30k-regions": {"captions": 155_070, "train images": 29_000, "val images": 1_014, "test images": 1_000}
}


def _inputs(root: Path | str, **_: object) -> list[Path]:
    root = Path(root)
    texts = [root / f"{split}_{what}.txt" for split in SPLITS for what in ("caps", "ids")]
    arrays = [root / f"{split}_ims.npy" for split in SPLITS]
    return [path for path in (*texts, *arrays, root) if path.exists()]


@reads(_inputs)
def read_regions(root: Path | str, captions_per_image: int = 5, name: str = "flickr30k-regions") -> Corpus:
    """A corpus from ``{train,dev,test}_ims.npy`` ``[N, 36, 2048]`` and ``_caps.txt``; the features stay on disk.

    The arrays hold an image once, or once a caption; which, follows from the number of captions. ``_ids.txt`` may say
    which image each row or each caption is of: one id an image, or one a caption (both are in circulation). Without
    it, or with one id an image, captions belong to images in equal runs.

    Args:
        root: the folder of the files.
        captions_per_image: length of these runs; unused where ``_ids.txt`` has one id a caption.
        name: of the corpus.

    Raises:
        InputError: files are missing or damaged, numbers of captions, ids and images contradict each other, a caption
            is empty, or images that should be copies of each other differ.
    """
    root = Path(root)
    arrays = {split: root / f"{split}_ims.npy" for split in SPLITS}
    captions = {split: root / f"{split}_caps.txt" for split in SPLITS}
    require([*arrays.values(), *captions.values()], "{train,dev,test}_ims.npy and {train,dev,test}_caps.txt")
    array = NpyRows(list(arrays.values()))
    starts = np.cumsum([0, *array.lengths])

    image_ids, texts, text_ids, rows, owners, images_before = [], [], [], [], [], [0]
    for split, (start, end) in zip(SPLITS, pairwise(starts), strict=True):
        lines = _captions(captions[split])
        ids, stored, owner = _pairing(root, split, len(lines), int(end - start), captions_per_image)
        if end - start > len(ids):
            _check_copies(array, int(start), stored, owner, arrays[split])
        image_ids += [f"{split}/{each}" for each in ids]
        text_ids += [f"{split}/{line}" for line in range(len(lines))]
        texts += lines
        rows.append(start + stored)
        owners.append(images_before[-1] + owner)
        images_before.append(images_before[-1] + len(ids))

    members = {SPLITS[split]: np.arange(*span) for split, span in zip(SPLITS, pairwise(images_before), strict=True)}
    return Corpus(
        name=name,
        image_ids=image_ids,
        images=Features(array, rows=np.concatenate(rows)),
        text_ids=text_ids,
        texts=Strings(texts),
        text_to_image=np.concatenate(owners),
        train=members["train"],
        stages={split: Stage(members[split], members[split]) for split in ("val", "test")},
        counts=_counts(name, members, len(texts)),
    )


def _captions(path: Path) -> list[str]:
    lines = [line.strip() for line in read_lines(path)]
    empty = next((at for at, line in enumerate(lines, start=1) if not line), None)
    if empty is not None:
        raise InputError(f"{path}, line {empty}: the caption is empty; restore the original file")
    return lines


def _pairing(
    root: Path, split: str, captions: int, stored: int, captions_per_image: int
) -> tuple[list[str], Rows, Rows]:
    """Ids of the images of a split, the stored row of each, and the image of every caption."""
    path = root / f"{split}_ids.txt"
    ids = [line.strip() for line in read_lines(path)] if path.exists() else None
    if ids is not None and len(ids) == captions:
        image_of = {each: row for row, each in enumerate(dict.fromkeys(ids))}
        owner = np.array([image_of[each] for each in ids], dtype=np.int64)
        images, first_caption = len(image_of), np.unique(owner, return_index=True)[1]
        names = list(image_of)
    else:
        images = captions // captions_per_image
        first_caption = np.arange(images) * captions_per_image
        owner = np.arange(captions) // captions_per_image
        names = [str(row) for row in range(images)] if ids is None else ids
        if images * captions_per_image != captions or len(names) != images:
            raise InputError(
                f"{root}: {split}_caps.txt has {captions:,} captions, {split}_ids.txt {len(names):,} ids, and an image "
                f"has {captions_per_image} captions; restore the files or give captions_per_image"
            )
        require_unique(names, str(path))
    if stored == images:
        return names, np.arange(images), owner
    if stored == captions:
        return names, first_caption, owner
    raise InputError(
        f"{root}: {split}_ims.npy has {stored:,} rows where {captions:,} captions are of {images:,} images: expected "
        f"{images:,}, or {captions:,} with an image stored once a caption; restore the files or give captions_per_image"
    )


def _check_copies(array: NpyRows, first: int, stored: Rows, owner: Rows, path: Path) -> None:
    """Compares evenly spaced images that are stored once a caption with their copies."""
    for image in np.unique(np.linspace(0, len(stored) - 1, COPIES_CHECKED).astype(np.int64)):
        for row in np.flatnonzero(owner == image):
            if not np.array_equal(array[first + row], array[first + stored[image]]):
                raise InputError(
                    f"{path}: rows {stored[image]} and {row} differ though their captions are of one image; "
                    "restore the file or give captions_per_image"
                )


def _counts(name: str, members: dict[str, Rows], captions: int) -> list[Count]:
    published = PUBLISHED.get(name, {})
    found = {"captions": captions} | {f"{split} images": len(rows) for split, rows in members.items()}
    return [Count(what, number, published.get(what)) for what, number in found.items()]


class PrecomputedRegions(CorpusDataModule):
    """Region features with captions, as SCAN and its successors ship them (``f30k_precomp``).

    Args:
        root: the folder of ``{train,dev,test}_ims.npy``, ``_caps.txt`` and ``_ids.txt``.
        captions_per_image: how many captions in a row belong to one image.
        name: of the dataset.
        **kwargs: those of ``CorpusDataModule``.
    """

    def __init__(self, root: str, captions_per_image: int = 5, name: str = "flickr30k-regions", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.root, self.captions_per_image, self.name = root, captions_per_image, name

    def read(self) -> Corpus:
        return cached(read_regions, self.root, captions_per_image=self.captions_per_image, name=self.name)
