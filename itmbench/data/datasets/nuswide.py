"""NUS-WIDE as its authors ship it: image list, concept labels and user tags.

Chua et al., "NUS-WIDE: A Real-World Web Image Database from National University of Singapore", CIVR 2009. The files
of ``TrainTestLabels`` are not read: one of them is corrupt upstream.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from itmbench.data.cache import cached
from itmbench.data.corpus import Corpus, Count, Features, ImageFiles, Strings
from itmbench.data.datamodule import CorpusDataModule
from itmbench.data.reader import reads
from itmbench.data.reading import first_folder, image_files, listing, read_bits, read_lines, require
from itmbench.data.splits import Order, label_split
from itmbench.errors import InputError

Concepts = Literal["tc21", "tc10", "all"]

LAYOUT = (
    "ImageList/Imagelist.txt, ConceptsList/Concepts81.txt, Groundtruth/AllLabels/Labels_<concept>.txt and "
    "NUS_WID_Tags/{All_Tags,AllTags1k,TagList1k}.txt"
)
# How many of the most frequent concepts; test queries; training items.
VARIANTS = {"tc21": (21, 2_100, 10_500), "tc10": (10, 2_000, 5_000), "all": (None, 2_100, 10_500)}
PUBLISHED_ROWS, PUBLISHED_TAGS, PUBLISHED_DIFFERENT = 269_648, 1_000, 16
PUBLISHED_KEPT = {("tc21", False): 195_834, ("tc21", True): 190_421, ("tc10", False): 186_577}
# More rows than this whose photo ids disagree, and the two lists are not of one order.
MOST_FOREIGN_ROWS = 0.01


def _inputs(root: Path | str, images: Path | str | None = None, **_: object) -> list[Path]:
    root = Path(root)
    tags = root / "NUS_WID_Tags"
    files = [
        root / "ImageList" / "Imagelist.txt",
        root / "ConceptsList" / "Concepts81.txt",
        *(tags / name for name in ("All_Tags.txt", "AllTags1k.txt", "TagList1k.txt")),
        *sorted((root / "Groundtruth" / "AllLabels").glob("Labels_*.txt")),
    ]
    folder = _image_folder(root, images)
    return [path for path in files if path.exists()] + ([folder] if folder and folder.is_dir() else [])


@reads(_inputs)
def read_nuswide(
    root: Path | str,
    images: Path | str | None = None,
    concepts: Concepts = "tc21",
    require_tag: bool = False,
    text: Literal["tags", "bow"] = "tags",
    queries: int | None = None,
    train: int | None = None,
    val: int | None = None,
    order: Order = "seeded",
    seed: int = 0,
    name: str = "nuswide",
) -> Corpus:
    """A corpus of the rows that have one of the chosen concepts.

    Rows are kept by their place in the list, never by photo id, because some photo ids occur on two rows. "tc21" and
    "tc10" are the 21 and 10 concepts that most rows have, counted in the label files over all rows; of two equally
    frequent ones the alphabetically first. Labels are in the order of ``Concepts81.txt``.

    ``AllTags1k.txt`` decides which tags a row has, as in the papers that load it; ``All_Tags.txt`` gives them their
    original order. In the few rows where the two disagree, tags that only ``All_Tags.txt`` has are left out, and those
    that only ``AllTags1k.txt`` has follow at the end, so that strings and vectors always say the same.

    Args:
        root: the folder of the files above.
        images: the folder of images: ``<folder>/<name>.jpg`` as in the list, or flat, matched by file name, else by
            photo id. By default ``Flickr`` or ``images`` below the root; without one the corpus has no images.
        concepts: which labels, and with them which rows: "tc21", "tc10" or "all".
        require_tag: keep only rows with a tag of ``TagList1k.txt``; appends "-tagged" to the name. Otherwise a row
            without a tag has an empty text.
        text: "tags", strings; "bow", multi-hot vectors over ``TagList1k.txt`` `[N, 1000]`.
        queries: test queries; 2,100, or 2,000 for "tc10". See `label_split`, as for the next four.
        train: training items before validation queries are carved out; 10,500, or 5,000 for "tc10".
        val: validation queries.
        order: which items are queries.
        seed: of a seeded order.
        name: of the corpus; the concepts are appended.

    Raises:
        InputError: files or images are missing, numbers of lines differ, a line is malformed, tags and images are not
            in one order, the sizes of the split do not fit.
    """
    root = Path(root)
    image_list, concept_list = root / "ImageList" / "Imagelist.txt", root / "ConceptsList" / "Concepts81.txt"
    tag_files = [root / "NUS_WID_Tags" / file for file in ("All_Tags.txt", "AllTags1k.txt", "TagList1k.txt")]
    require([image_list, concept_list, *tag_files], LAYOUT)
    paths = _image_paths(image_list)
    chosen, labels = _labels(root, concept_list, VARIANTS[concepts][0], len(paths))
    vocabulary = _names(tag_files[2])
    bag = read_bits(tag_files[1], len(vocabulary))
    _require_rows(tag_files[1], len(bag), len(paths))
    tags, different = _tags(tag_files[0], vocabulary, bag, [_photo_id(path) for path in paths])

    kept = labels.any(axis=1) & (bag.any(axis=1) if require_tag else True)
    keep = np.flatnonzero(kept)
    kept_paths = [paths[row] for row in keep]
    _, default_queries, default_train = VARIANTS[concepts]
    fit, stages = label_split(len(keep), queries or default_queries, train or default_train, val, order, seed)
    ids = _ids(paths)
    kept_ids = [ids[row] for row in keep]
    corpus_name = f"{name}-{concepts}-tagged" if require_tag else f"{name}-{concepts}"
    genuine = name == "nuswide"
    return Corpus(
        name=corpus_name,
        image_ids=kept_ids,
        images=_images(_image_folder(root, images), kept_paths),
        text_ids=kept_ids,
        texts=Features(bag[keep]) if text == "bow" else Strings([" ".join(tags[row]) for row in keep]),
        text_to_image=np.arange(len(keep)),
        train=fit,
        stages=stages,
        labels=labels[keep],
        label_names=chosen,
        counts=[
            Count("rows", len(paths), PUBLISHED_ROWS if genuine else None),
            Count("tags in the vocabulary", len(vocabulary), PUBLISHED_TAGS if genuine else None),
            Count("rows whose two tag files differ", different, PUBLISHED_DIFFERENT if genuine else None),
            Count("rows kept", len(keep), PUBLISHED_KEPT.get((concepts, require_tag)) if genuine else None),
        ],
    )


def _names(path: Path) -> list[str]:
    return [line.strip() for line in read_lines(path) if line.strip()]


def _image_paths(path: Path) -> list[str]:
    """``folder/name.jpg`` of every row, whichever slash the list has."""
    paths = [line.strip().replace("\\", "/") for line in read_lines(path)]
    odd = next((at for at, each in enumerate(paths, start=1) if "/" not in each or "_" not in each), None)
    if odd is not None:
        raise InputError(rf"{path}, line {odd}: expected folder\number_photoid.jpg, found {paths[odd - 1]!r}")
    return paths


def _photo_id(path: str) -> str:
    """``2124494179`` of ``actor/0001_2124494179.jpg``."""
    return path.rpartition("_")[2].partition(".")[0]


def _ids(paths: Sequence[str]) -> list[str]:
    """An id of every row: its path, with the line number where an earlier row has the same path."""
    seen: set[str] = set()
    ids = []
    for line, path in enumerate(paths, start=1):
        ids.append(f"{path}#{line}" if path in seen else path)
        seen.add(path)
    return ids


def _require_rows(path: Path, found: int, expected: int) -> None:
    if found != expected:
        raise InputError(f"{path} has {found:,} lines, Imagelist.txt has {expected:,}; restore the original file")


def _labels(root: Path, concept_list: Path, most: int | None, rows: int) -> tuple[list[str], NDArray[np.uint8]]:
    """The most frequent concepts (all for None) in the order of the list, and their labels `[rows, C]`."""
    names = _names(concept_list)
    files = [root / "Groundtruth" / "AllLabels" / f"Labels_{concept}.txt" for concept in names]
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
    """The tags of every row that ``bag`` marks, in the order of the file, and how many rows differed from ``bag``."""
    lines = read_lines(path)
    _require_rows(path, len(lines), len(photo_ids))
    column_of = {tag: column for column, tag in enumerate(vocabulary)}
    tags, foreign = [], []
    for row, (line, photo_id) in enumerate(zip(lines, photo_ids, strict=True)):
        words = line.split()
        if words[:1] != [photo_id]:
            foreign.append(row)
        tags.append([word for word in words[1:] if word in column_of])
    if len(foreign) > MOST_FOREIGN_ROWS * len(lines):
        raise InputError(
            f"{path}: {len(foreign):,} rows have another photo id than Imagelist.txt, the first is line "
            f"{foreign[0] + 1}; use files of one release, in the original order"
        )
    different = _different_rows(tags, column_of, bag)
    for row in different.tolist():
        marked = [tag for tag, has in zip(vocabulary, bag[row], strict=True) if has]
        tags[row] = [tag for tag in tags[row] if tag in marked] + [tag for tag in marked if tag not in tags[row]]
    return tags, len(different)


def _different_rows(
    tags: Sequence[Sequence[str]], column_of: dict[str, int], bag: NDArray[np.uint8]
) -> NDArray[np.int64]:
    rows = np.repeat(np.arange(len(tags)), [len(each) for each in tags])
    columns = np.array([column_of[tag] for each in tags for tag in each], dtype=np.int64)
    cells = np.sort(rows * len(column_of) + columns)
    cells = cells[np.diff(cells, prepend=-1) > 0]  # a tag may be named twice
    shared = np.bincount(cells // len(column_of), bag.ravel()[cells], minlength=len(tags))
    named = np.bincount(cells // len(column_of), minlength=len(tags))
    return np.flatnonzero((shared != named) | (shared != bag.sum(axis=1)))


def _image_folder(root: Path, images: Path | str | None) -> Path | None:
    return Path(images) if images else first_folder([root / "Flickr", root / "images"])


def _images(folder: Path | None, paths: Sequence[str]) -> ImageFiles | None:
    """The file of every path: at its place, or flat under its name, or flat under any name with its photo id."""
    if folder is None:
        return None
    require([folder], "the folder of images")
    sizes = listing(folder)
    by_photo_id = {_photo_id(name): name for name in sizes if "/" not in name}
    names = []
    for path in paths:
        flat = path.rpartition("/")[2]
        names.append(next((name for name in (path, flat) if name in sizes), by_photo_id.get(_photo_id(path), path)))
    return image_files(folder, names, sizes)


class NUSWide(CorpusDataModule):
    """NUS-WIDE: photographs with user tags and 21, 10 or 81 concepts.

    Args:
        root: the folder of ``ImageList``, ``Groundtruth``, ``ConceptsList`` and ``NUS_WID_Tags``.
        images: the folder of images; by default ``Flickr`` below ``root``.
        concepts: "tc21" or "tc10", the most frequent ones, or "all" 81.
        require_tag: keep only items with one of the 1,000 tags (190,421 items, not 195,834, with "tc21").
        text: "tags" as words, or "bow", the multi-hot tag vector.
        queries: test queries; by default the published number for ``concepts``.
        train: training items, before validation queries are carved out of them; by default the published number.
        val: validation queries; a tenth of ``train`` by default.
        order: how queries are chosen: "seeded", "first" or "last".
        split_seed: seed of the choice.
        **kwargs: those of ``CorpusDataModule``.
    """

    def __init__(
        self,
        root: str,
        images: str | None = None,
        concepts: Literal["tc21", "tc10", "all"] = "tc21",
        require_tag: bool = False,
        text: Literal["tags", "bow"] = "tags",
        queries: int | None = None,
        train: int | None = None,
        val: int | None = None,
        order: Order = "seeded",
        split_seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.root = root
        self.options: dict[str, Any] = {"images": images, "concepts": concepts, "require_tag": require_tag}
        self.options |= {
            "text": text,
            "queries": queries,
            "train": train,
            "val": val,
            "order": order,
            "seed": split_seed,
        }

    def read(self) -> Corpus:
        return cached(read_nuswide, self.root, **self.options)
