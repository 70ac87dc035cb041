"""NUS-WIDE as its authors distribute it: image list, concept labels and user tags.

Chua et al., "NUS-WIDE: A Real-World Web Image Database from National University of Singapore", CIVR 2009. The files
of ``TrainTestLabels`` are not read: one of them is corrupt upstream.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from itmbench.data.corpus import Corpus, Count, Features, ImageFiles, Strings
from itmbench.data.reading import (
    first_folder,
    image_files,
    listing,
    read_bits,
    read_lines,
    require,
    require_prepared,
    require_unique,
)
from itmbench.data.splits import LabelledDataset
from itmbench.errors import InputError, MissingImages
from itmbench.files import real_path

LAYOUT = (
    "ImageList/Imagelist.txt, ConceptsList/Concepts81.txt, Groundtruth/AllLabels/Labels_<concept>.txt and "
    "NUS_WID_Tags/{All_Tags,AllTags1k,TagList1k}.txt"
)
VARIANTS = {"tc21": (21, 2_100, 10_500), "tc10": (10, 2_000, 5_000), "all": (None, 2_100, 10_500)}
"""Number of most frequent concepts (None: all), of test queries, and of training items."""
PUBLISHED = {"rows": 269_648, "tags in the vocabulary": 1_000, "rows whose two tag files differ": 16}
PUBLISHED_KEPT = {("tc21", False): 195_834, ("tc21", True): 190_421, ("tc10", False): 186_577}
"""Rows kept, by ``concepts`` and ``require_tag``."""
MAX_FOREIGN_ROWS = 0.01
"""If the photo ids of more rows than this share disagree, the two lists are not in the same order."""


class NUSWide(LabelledDataset):
    """NUS-WIDE: photographs with user tags and 21, 10 or 81 concepts as labels.

    Rows with one of the chosen concepts are kept. They are identified by their place in the list, because some photo
    ids occur on two rows. ``AllTags1k.txt`` decides which tags a row has, as in the papers that load it, and
    ``All_Tags.txt`` gives their original order. In the few rows where the two disagree, tags that only ``All_Tags.txt``
    has are left out and tags that only ``AllTags1k.txt`` has come last, so that strings and vectors always agree.

    Args:
        root: the folder of ``ImageList``, ``Groundtruth``, ``ConceptsList`` and ``NUS_WID_Tags``.
        images: the image folder, with ``<folder>/<name>.jpg`` as in the list, or flat, matched by file name, else by
            photo id. By default ``Flickr`` or ``images`` below ``root``. If none exists, the corpus has no images.
        concepts: "tc21" or "tc10", the 21 or 10 most frequent concepts over all rows (ties by name), or "all" 81.
        require_tag: keep only rows with one of the 1,000 tags, and append "-tagged" to the dataset's name. With "tc21"
            this keeps 190,421 rows instead of 195,834. Otherwise a row without a tag has an empty text.
        missing_images: "refuse" a folder that lacks images, or "drop" the rows whose image it lacks: many photographs
            are no longer on Flickr, and copies that others downloaded from there are incomplete.
        text: "tags", strings, or "bow", multi-hot vectors over ``TagList1k.txt`` `[N, 1000]`.
        queries: number of test queries; by default 2,100, or 2,000 for "tc10".
        train: number of training items, before validation queries are taken from them; by default 10,500, or 5,000 for
            "tc10".
        name: the dataset's name, to which the concepts are appended.
        **kwargs: arguments of ``LabelledDataset``, which hold the rest of the split, and of ``CorpusDataModule``.

    Raises:
        InputError: while reading: files or images are missing, numbers of lines differ, a line is malformed, tags and
            images are not in the same order, the split does not fit the data.
    """

    def __init__(
        self,
        root: str | Path,
        images: str | Path | None = None,
        concepts: Literal["tc21", "tc10", "all"] = "tc21",
        require_tag: bool = False,
        missing_images: Literal["refuse", "drop"] = "refuse",
        text: Literal["tags", "bow"] = "tags",
        queries: int | None = None,
        train: int | None = None,
        name: str = "nuswide",
        **kwargs: Any,
    ) -> None:
        self.most, usual_queries, usual_train = VARIANTS[concepts]
        super().__init__(root, name, queries=queries or usual_queries, train=train or usual_train, **kwargs)
        self.images = real_path(images) if images else first_folder([self.root / "Flickr", self.root / "images"])
        self.concepts, self.require_tag, self.text = concepts, require_tag, text
        self.missing_images = missing_images
        self.image_list = self.root / "ImageList" / "Imagelist.txt"
        self.concept_list = self.root / "ConceptsList" / "Concepts81.txt"
        tags = self.root / "NUS_WID_Tags"
        self.tag_lines, self.tag_matrix, self.tag_list = (
            tags / file for file in ("All_Tags.txt", "AllTags1k.txt", "TagList1k.txt")
        )
        self.label_folder = self.root / "Groundtruth" / "AllLabels"

    def inputs(self) -> list[Path]:
        labels = sorted(self.label_folder.glob("Labels_*.txt"))
        folders = [self.images] if self.images else []
        return [self.image_list, self.concept_list, self.tag_lines, self.tag_matrix, self.tag_list, *labels, *folders]

    def read(self) -> Corpus:
        require_prepared(self.root)
        require([self.image_list, self.concept_list, self.tag_lines, self.tag_matrix, self.tag_list], LAYOUT)
        paths = _image_paths(self.image_list)
        label_names, labels = _labels(self.label_folder, self.concept_list, self.most, len(paths))
        vocabulary = _names(self.tag_list)
        bag = read_bits(self.tag_matrix, len(vocabulary))
        _require_rows(self.tag_matrix, len(bag), len(paths))
        tags, different = _tags(self.tag_lines, vocabulary, bag, [_photo_id(path) for path in paths])

        keep = np.flatnonzero(labels.any(axis=1) & (bag.any(axis=1) if self.require_tag else True))
        images, present = self._find_images([paths[row] for row in keep])
        missing, keep = keep[~present], keep[present]
        train, stages = self.split(len(keep))
        first = {path: row for row, path in reversed(list(enumerate(paths)))}  # a path may be on two rows
        ids = [paths[row] if first[paths[row]] == row else f"{paths[row]}#{row + 1}" for row in keep]
        kept = PUBLISHED_KEPT.get((self.concepts, self.require_tag))
        published = {**PUBLISHED, "rows kept": kept} if self.name == "nuswide" else {}
        counts = {
            "rows": len(paths),
            "tags in the vocabulary": len(vocabulary),
            "rows whose two tag files differ": different,
            "rows kept": len(keep),
        }
        if self.missing_images == "drop":
            counts["rows without their image"] = len(missing)
        return Corpus(
            name=f"{self.name}-{self.concepts}-tagged" if self.require_tag else f"{self.name}-{self.concepts}",
            image_ids=ids,
            images=images,
            text_ids=ids,
            texts=Features(bag[keep]) if self.text == "bow" else Strings([" ".join(tags[row]) for row in keep]),
            text_to_image=np.arange(len(keep)),
            train=train,
            stages=stages,
            labels=labels[keep],
            label_names=label_names,
            groups=np.unique([_photo_id(paths[row]) for row in keep], return_inverse=True)[1],
            counts=[Count(what, number, published.get(what)) for what, number in counts.items()],
            missing=[paths[row] for row in missing],
        )

    def _find_images(self, paths: Sequence[str]) -> tuple[ImageFiles | None, NDArray[np.bool_]]:
        """The images of rows, and which rows stay `[rows]`.

        The image of a path is in its subfolder, or flat under its name, or flat under a name with its photo id.
        """
        if self.images is None:
            return None, np.ones(len(paths), bool)
        require([self.images], "the folder of images")
        sizes = listing(self.images)
        by_photo_id = {_photo_id(name): name for name in sizes if "/" not in name}
        names = []
        for path in paths:
            flat = path.rpartition("/")[2]
            names.append(next((name for name in (path, flat) if name in sizes), by_photo_id.get(_photo_id(path), path)))
        present = np.array([name in sizes for name in names], bool)
        if self.missing_images == "refuse" or not present.any():
            try:
                return image_files(self.images, names, sizes), present
            except MissingImages as error:
                advice = "" if not present.any() else "; or leave their rows out with missing_images: drop"
                raise MissingImages(f"{error}{advice}", error.names) from None
        return image_files(self.images, [name for name in names if name in sizes], sizes), present


def _names(path: Path) -> list[str]:
    names = [line.strip() for line in read_lines(path) if line.strip()]
    require_unique(names, str(path))
    return names


def _image_paths(path: Path) -> list[str]:
    """``folder/name.jpg`` of every row; the list may use either slash."""
    paths = [line.strip().replace("\\", "/") for line in read_lines(path)]
    odd = next((number for number, path_ in enumerate(paths, start=1) if "/" not in path_ or "_" not in path_), None)
    if odd is not None:
        raise InputError(rf"{path}, line {odd}: expected folder\number_photoid.jpg, found {paths[odd - 1]!r}")
    return paths


def _photo_id(path: str) -> str:
    """``2124494179`` of ``actor/0001_2124494179.jpg``."""
    return path.rpartition("_")[2].partition(".")[0]


def _require_rows(path: Path, found: int, expected: int) -> None:
    if found != expected:
        raise InputError(f"{path} has {found:,} lines, Imagelist.txt has {expected:,}; restore the original file")


def _labels(folder: Path, concept_list: Path, most: int | None, rows: int) -> tuple[list[str], NDArray[np.uint8]]:
    """The most frequent concepts (None: all) in the order of the list, and their labels `[rows, C]`."""
    names = _names(concept_list)
    files = [folder / f"Labels_{concept}.txt" for concept in names]
    require(files, f"a file of labels for each of the {len(names)} lines of {concept_list.name}")
    matrix = np.empty((rows, len(names)), np.uint8)
    for column, file in enumerate(files):
        labels = read_bits(file, 1)
        _require_rows(file, len(labels), rows)
        matrix[:, column] = labels[:, 0]
    frequency = matrix.sum(axis=0, dtype=np.int64)
    ranked = sorted(range(len(names)), key=lambda column: (-frequency[column], names[column]))
    columns = sorted(ranked[:most])
    return [names[column] for column in columns], matrix[:, columns]


def _tags(
    path: Path, vocabulary: Sequence[str], bag: NDArray[np.uint8], photo_ids: Sequence[str]
) -> tuple[list[list[str]], int]:
    """Tags of every row as ``bag`` marks them, in the file's order, and the number of rows that differ from ``bag``."""
    lines = read_lines(path)
    _require_rows(path, len(lines), len(photo_ids))
    column_of = {tag: column for column, tag in enumerate(vocabulary)}
    tags, foreign = [], []
    for row, (line, photo_id) in enumerate(zip(lines, photo_ids, strict=True)):
        words = line.split()
        if words[:1] != [photo_id]:
            foreign.append(row)
        tags.append([word for word in words[1:] if word in column_of])
    if len(foreign) > MAX_FOREIGN_ROWS * len(lines):
        raise InputError(
            f"{path}: {len(foreign):,} rows have a photo id other than in Imagelist.txt, the first in line "
            f"{foreign[0] + 1}; use files of one release in their original order"
        )
    different = _different_rows(tags, column_of, bag)
    for row in different.tolist():
        marked = [tag for tag, bit in zip(vocabulary, bag[row], strict=True) if bit]
        tags[row] = [tag for tag in tags[row] if tag in marked] + [tag for tag in marked if tag not in tags[row]]
    return tags, len(different)


def _different_rows(
    tags: Sequence[Sequence[str]], column_of: dict[str, int], bag: NDArray[np.uint8]
) -> NDArray[np.int64]:
    """Rows whose tags are not those that ``bag`` `[rows, tags]` marks."""
    rows = np.repeat(np.arange(len(tags)), [len(words) for words in tags])
    columns = np.array([column_of[tag] for words in tags for tag in words], dtype=np.int64)
    cells = np.sort(rows * len(column_of) + columns)
    cells = cells[np.diff(cells, prepend=-1) > 0]  # a row may name a tag twice
    shared = np.bincount(cells // len(column_of), bag.ravel()[cells], minlength=len(tags))
    named = np.bincount(cells // len(column_of), minlength=len(tags))
    return np.flatnonzero((shared != named) | (shared != bag.sum(axis=1)))
