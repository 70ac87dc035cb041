"""MirFlickr-25K as its authors distribute it: photographs, user tags and label annotations.

Huiskes & Lew, "The MIR Flickr Retrieval Evaluation", MIR 2008. The filters and the split's sizes follow the cross-modal
hashing papers since Jiang & Li, "Deep Cross-Modal Hashing" (DCMH), CVPR 2017.
"""

import re
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from itmbench.data.corpus import Corpus, Count, Features, ImageFiles, Strings
from itmbench.data.reading import (
    first_folder,
    image_files,
    listing,
    read_integers,
    read_lines,
    require,
    require_prepared,
)
from itmbench.data.splits import LabelledDataset
from itmbench.errors import InputError
from itmbench.files import real_path

LAYOUT = (
    "mirflickr/im<k>.jpg, mirflickr/meta/tags/tags<k>.txt, mirflickr/doc/common_tags.txt and the label files in "
    "mirflickr25k_annotations_v080 or mirflickr/annotations"
)
PUBLISHED = {"images": 25_000, "tags in the vocabulary": 1_386, "images with a tag and a label": 20_015}
PUBLISHED_LABELS = {"potential": 24, "all": 38}


class MirFlickr25K(LabelledDataset):
    """MirFlickr-25K: photographs with user tags and 24 or 38 labels.

    The vocabulary is ``doc/common_tags.txt``, the tags used at least 20 times. Images without such a tag or without a
    potential label are left out. The text of an image is its tags of the vocabulary in their original order. Labels are
    in alphabetical order of their file names.

    Args:
        root: the folder that holds ``mirflickr/``, or that folder itself. If it has no ``im<k>.jpg`` at all, the corpus
            has no images.
        annotations: the folder of the ``<label>.txt`` files; by default one of the two usual ones.
        labels: "potential", the 24 that papers use; "all" adds the 14 stricter ones (``<label>_r1.txt``), and their
            number to the dataset's name. Both keep the same images.
        text: "tags", strings, or "bow", multi-hot vectors over the vocabulary `[N, 1386]`.
        name: the dataset's name.
        **kwargs: arguments of ``LabelledDataset``, which hold the split, and of ``CorpusDataModule``.

    Raises:
        InputError: while reading: files or images are missing, text is not UTF-8, a line of the vocabulary is not a tag
            and a count, a label file names an image that does not exist, the split does not fit the data.
    """

    def __init__(
        self,
        root: str | Path,
        annotations: str | Path | None = None,
        labels: Literal["potential", "all"] = "potential",
        text: Literal["tags", "bow"] = "tags",
        name: str = "mirflickr25k",
        **kwargs: Any,
    ) -> None:
        super().__init__(root, name, **kwargs)
        self.labels, self.text = labels, text
        inner = self.root / "mirflickr"
        self.photos = inner if inner.is_dir() else self.root
        usual = (
            self.root / "mirflickr25k_annotations_v080",
            self.photos / "annotations",
            self.photos / "mirflickr25k_annotations_v080",
        )
        self.annotations = first_folder([real_path(annotations)] if annotations else usual)
        self.tags, self.vocabulary = self.photos / "meta" / "tags", self.photos / "doc" / "common_tags.txt"

    def inputs(self) -> list[Path]:
        folders = [self.tags, self.annotations] if self.annotations else [self.tags]
        texts = [folder / name for folder in folders for name in sorted(_text_files(folder))]
        return [self.vocabulary, *texts, self.photos]

    def read(self) -> Corpus:
        require_prepared(self.root)
        require([self.tags, self.vocabulary], LAYOUT)
        if self.annotations is None:
            raise InputError(f"{self.root}: no folder of label files; expected {LAYOUT}")
        column_of = _vocabulary(self.vocabulary)
        tags = _tags(self.tags, column_of)
        names, multi_hot = _labels(self.annotations, len(tags))

        potential = np.array([not name.endswith("_r1") for name in names])
        keep = np.flatnonzero(multi_hot[:, potential].any(axis=1) & np.array([len(words) > 0 for words in tags]))
        columns = np.flatnonzero(potential if self.labels == "potential" else np.ones(len(names), bool))
        kept_tags = [tags[row] for row in keep]
        train, stages = self.split(len(keep))
        ids = [f"im{row + 1}" for row in keep]
        counts = {
            "images": len(tags),
            "tags in the vocabulary": len(column_of),
            "labels": len(columns),
            "images with a tag and a label": len(keep),
        }
        published = PUBLISHED | {"labels": PUBLISHED_LABELS[self.labels]} if self.name == "mirflickr25k" else {}
        return Corpus(
            name=self.name if self.labels == "potential" else f"{self.name}-{len(columns)}",
            image_ids=ids,
            images=_images(self.photos, ids),
            text_ids=ids,
            texts=_bag(kept_tags, column_of)
            if self.text == "bow"
            else Strings([" ".join(words) for words in kept_tags]),
            text_to_image=np.arange(len(keep)),
            train=train,
            stages=stages,
            labels=multi_hot[np.ix_(keep, columns)],
            label_names=[names[column] for column in columns],
            counts=[Count(what, number, published.get(what)) for what, number in counts.items()],
        )


def _text_files(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.suffix == ".txt"] if folder.is_dir() else []


def _vocabulary(path: Path) -> dict[str, int]:
    """Column of every tag, in the order of the file's ``tag count`` lines."""
    column_of: dict[str, int] = {}
    for number, line in enumerate(read_lines(path), start=1):
        words = line.split()
        if len(words) != 2 or not words[1].isdecimal():
            raise InputError(f"{path}, line {number}: expected a tag and its count, found {line!r}; restore the file")
        if words[0] in column_of:
            raise InputError(f"{path}, line {number}: the tag {words[0]!r} occurs twice; restore the file")
        column_of[words[0]] = len(column_of)
    if not column_of:
        raise InputError(f"{path}: holds no tags; restore the file")
    return column_of


def _tags(folder: Path, vocabulary: dict[str, int]) -> list[list[str]]:
    """Tags of images 1, 2, ... that are in the vocabulary."""
    matches = [re.fullmatch(r"tags(\d+)\.txt", name) for name in _text_files(folder)]
    numbers = sorted(int(match[1]) for match in matches if match)
    gap = next((expected for expected, number in enumerate(numbers, start=1) if number != expected), None)
    if gap is not None or not numbers:
        raise InputError(f"missing: {folder / f'tags{gap or 1}.txt'}; expected one for every image, from 1 on")
    return [
        [tag for line in read_lines(folder / f"tags{number}.txt") if (tag := line.strip()) in vocabulary]
        for number in numbers
    ]


def _labels(folder: Path, images: int) -> tuple[list[str], NDArray[np.uint8]]:
    """Names of the labels `[C]` and the multi-hot matrix `[images, C]`."""
    files = sorted(name for name in _text_files(folder) if not name.lower().startswith("readme"))
    if not any(not name.endswith("_r1.txt") for name in files):
        raise InputError(f"{folder}: no <label>.txt files; expected {LAYOUT}")
    matrix = np.zeros((images, len(files)), np.uint8)
    for column, name in enumerate(files):
        numbers = read_integers(folder / name, 1, images, "the number of an image")
        matrix[np.array(numbers, dtype=np.int64) - 1, column] = 1
    return [name.removesuffix(".txt") for name in files], matrix


def _bag(tags: list[list[str]], column_of: dict[str, int]) -> Features:
    matrix = np.zeros((len(tags), len(column_of)), np.uint8)
    for row, words in enumerate(tags):
        matrix[row, [column_of[tag] for tag in words]] = 1
    return Features(matrix)


def _images(folder: Path, ids: list[str]) -> ImageFiles | None:
    """The photographs; None if the copy has none at all."""
    sizes = listing(folder)
    if not any(re.fullmatch(r"im\d+\.jpg", name) for name in sizes):
        return None
    return image_files(folder, [f"{image_id}.jpg" for image_id in ids], sizes)
