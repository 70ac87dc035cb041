"""MirFlickr-25K as its authors ship it: photographs, user tags and label annotations.

Huiskes & Lew, "The MIR Flickr Retrieval Evaluation", MIR 2008. Filters and sizes as in cross-modal hashing since
Jiang & Li, "Deep Cross-Modal Hashing" (DCMH), CVPR 2017.
"""

import re
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from itmbench.data.cache import cached
from itmbench.data.corpus import Corpus, Count, Features, ImageFiles, Strings
from itmbench.data.datamodule import CorpusDataModule
from itmbench.data.reader import reads
from itmbench.data.reading import first_folder, image_files, listing, read_integers, read_lines, require
from itmbench.data.splits import Order, label_split
from itmbench.errors import InputError

LAYOUT = (
    "mirflickr/im<k>.jpg, mirflickr/meta/tags/tags<k>.txt, mirflickr/doc/common_tags.txt and the label files in "
    "mirflickr25k_annotations_v080 or mirflickr/annotations"
)
PUBLISHED = {"images": 25_000, "tags in the vocabulary": 1_386, "images with a tag and a label": 20_015}
PUBLISHED_LABELS = {"potential": 24, "all": 38}


def _inputs(root: Path | str, annotations: Path | str | None = None, **_: object) -> list[Path]:
    base, labels = _folders(Path(root), annotations)
    tags = base / "meta" / "tags"
    files = [base / "doc" / "common_tags.txt", *(tags / name for name in sorted(_names_in(tags)))]
    label_files = [labels / name for name in sorted(_names_in(labels))] if labels else []
    return [path for path in (*files, *label_files, base) if path.exists()]


@reads(_inputs)
def read_mirflickr(
    root: Path | str,
    annotations: Path | str | None = None,
    labels: Literal["potential", "all"] = "potential",
    text: Literal["tags", "bow"] = "tags",
    queries: int = 2_000,
    train: int = 10_000,
    val: int | None = None,
    order: Order = "seeded",
    seed: int = 0,
    name: str = "mirflickr25k",
) -> Corpus:
    """A corpus of the images that have a tag of the vocabulary and a potential label.

    The vocabulary is ``doc/common_tags.txt``: the tags used at least 20 times. The text of an image is its tags of the
    vocabulary in their original order. Labels are in alphabetical order of their file names.

    Args:
        root: the folder that holds ``mirflickr/``, or that folder itself. Without a single ``im<k>.jpg``: no images.
        annotations: the folder of the label files, where it is not one of the usual two.
        labels: "potential", 24 labels; "all", also the 14 stricter ones (``<label>_r1.txt``), which appends the number
            of labels to the corpus' name. The images are the same.
        text: "tags", strings; "bow", multi-hot vectors over the vocabulary `[N, 1386]`.
        queries: test queries; see `label_split`, as for the next four.
        train: training items before validation queries are carved out.
        val: validation queries.
        order: which items are queries.
        seed: of a seeded order.
        name: of the corpus.

    Raises:
        InputError: files or images are missing, text is not UTF-8, the vocabulary has a line that is not a tag and a
            count, a label file names an image that does not exist, the sizes of the split do not fit.
    """
    base, label_folder = _folders(Path(root), annotations)
    tag_folder, vocabulary_file = base / "meta" / "tags", base / "doc" / "common_tags.txt"
    require([tag_folder, vocabulary_file], LAYOUT)
    if label_folder is None:
        raise InputError(f"{root}: no folder of label files; expected {LAYOUT}")
    column_of = _vocabulary(vocabulary_file)
    tags = _tags(tag_folder, column_of)
    names, multi_hot = _labels(label_folder, len(tags))

    potential = np.array([not each.endswith("_r1") for each in names])
    keep = np.flatnonzero(multi_hot[:, potential].any(axis=1) & np.array([len(each) > 0 for each in tags]))
    columns = np.flatnonzero(potential if labels == "potential" else np.ones(len(names), bool))
    kept_tags = [tags[row] for row in keep]
    fit, stages = label_split(len(keep), queries, train, val, order, seed)
    ids = [f"im{row + 1}" for row in keep]
    found = {
        "images": len(tags),
        "tags in the vocabulary": len(column_of),
        "labels": len(columns),
        "images with a tag and a label": len(keep),
    }
    published = PUBLISHED | {"labels": PUBLISHED_LABELS[labels]} if name == "mirflickr25k" else {}
    return Corpus(
        name=name if labels == "potential" else f"{name}-{len(columns)}",
        image_ids=ids,
        images=_images(base, ids),
        text_ids=ids,
        texts=Strings([" ".join(each) for each in kept_tags]) if text == "tags" else _bag(kept_tags, column_of),
        text_to_image=np.arange(len(keep)),
        train=fit,
        stages=stages,
        labels=multi_hot[np.ix_(keep, columns)],
        label_names=[names[column] for column in columns],
        counts=[Count(what, number, published.get(what)) for what, number in found.items()],
    )


def _folders(root: Path, annotations: Path | str | None) -> tuple[Path, Path | None]:
    """The folder of the photographs, and that of the label files."""
    base = root / "mirflickr" if (root / "mirflickr").is_dir() else root
    usual = (root / "mirflickr25k_annotations_v080", base / "annotations", base / "mirflickr25k_annotations_v080")
    return base, first_folder([Path(annotations)] if annotations else usual)


def _names_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.suffix == ".txt"] if folder.is_dir() else []


def _vocabulary(path: Path) -> dict[str, int]:
    """Column of every tag, in the order of the file's ``tag count`` lines."""
    column_of: dict[str, int] = {}
    for at, line in enumerate(read_lines(path), start=1):
        words = line.split()
        if len(words) != 2 or not words[1].isdecimal():
            raise InputError(f"{path}, line {at}: expected a tag and its count, found {line!r}; restore the file")
        if words[0] in column_of:
            raise InputError(f"{path}, line {at}: the tag {words[0]!r} occurs twice; restore the file")
        column_of[words[0]] = len(column_of)
    return column_of


def _tags(folder: Path, vocabulary: dict[str, int]) -> list[list[str]]:
    """The tags of images 1, 2, ... that are in the vocabulary."""
    numbers = sorted(int(found[1]) for name in _names_in(folder) if (found := re.fullmatch(r"tags(\d+)\.txt", name)))
    gap = next((expected for expected, number in enumerate(numbers, start=1) if number != expected), None)
    if gap is not None or not numbers:
        raise InputError(f"missing: {folder / f'tags{gap or 1}.txt'}; expected one tags<k>.txt an image, from 1 on")
    return [
        [tag for line in read_lines(folder / f"tags{number}.txt") if (tag := line.strip()) in vocabulary]
        for number in numbers
    ]


def _labels(folder: Path, images: int) -> tuple[list[str], NDArray[np.uint8]]:
    """Names of the labels `[C]` and the multi-hot matrix `[images, C]`."""
    files = sorted(name for name in _names_in(folder) if not name.lower().startswith("readme"))
    if not any(not name.endswith("_r1.txt") for name in files):
        raise InputError(f"{folder}: no <label>.txt files; expected {LAYOUT}")
    matrix = np.zeros((images, len(files)), np.uint8)
    for column, name in enumerate(files):
        numbers = read_integers(folder / name, 1, images, "the number of an image")
        matrix[np.array(numbers, dtype=np.int64) - 1, column] = 1
    return [name.removesuffix(".txt") for name in files], matrix


def _bag(tags: list[list[str]], column_of: dict[str, int]) -> Features:
    matrix = np.zeros((len(tags), len(column_of)), np.uint8)
    for row, each in enumerate(tags):
        matrix[row, [column_of[tag] for tag in each]] = 1
    return Features(matrix)


def _images(base: Path, ids: list[str]) -> ImageFiles | None:
    """The photographs; None where the copy has none at all."""
    sizes = listing(base)
    if not any(re.fullmatch(r"im\d+\.jpg", name) for name in sizes):
        return None
    return image_files(base, [f"{each}.jpg" for each in ids], sizes)


class MirFlickr25K(CorpusDataModule):
    """MirFlickr-25K: photographs with user tags and 24 (or 38) labels.

    Args:
        root: the folder that holds ``mirflickr/`` and the annotations.
        annotations: the folder of the ``<label>.txt`` files; by default one of the two usual ones.
        labels: "potential", the 24 that papers use, or "all" with the 14 stricter ones.
        text: "tags" as words, or "bow", the multi-hot tag vector.
        queries: test queries.
        train: training items, before validation queries are carved out of them.
        val: validation queries; a tenth of ``train`` by default.
        order: how queries are chosen: "seeded", "first" or "last".
        split_seed: seed of the choice.
        **kwargs: those of ``CorpusDataModule``.
    """

    def __init__(
        self,
        root: str,
        annotations: str | None = None,
        labels: Literal["potential", "all"] = "potential",
        text: Literal["tags", "bow"] = "tags",
        queries: int = 2_000,
        train: int = 10_000,
        val: int | None = None,
        order: Order = "seeded",
        split_seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.root = root
        self.options: dict[str, Any] = {"annotations": annotations, "labels": labels, "text": text}
        self.options |= {"queries": queries, "train": train, "val": val, "order": order, "seed": split_seed}

    def read(self) -> Corpus:
        return cached(read_mirflickr, self.root, **self.options)
