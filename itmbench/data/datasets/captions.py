"""Photographs with captions: Karpathy's ``dataset_*.json``, and Flickr30K as its authors ship it.

Karpathy's files (Karpathy & Fei-Fei, "Deep Visual-Semantic Alignments", CVPR 2015) hold Flickr8k, Flickr30K and COCO
in one schema, with the split that image-text matching papers use.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from itmbench.data.cache import cached
from itmbench.data.corpus import Corpus, Count, ImageFiles, Rows, Stage, Strings
from itmbench.data.datamodule import CorpusDataModule
from itmbench.data.reader import reads
from itmbench.data.reading import first_folder, image_files, read_json, read_lines, require, require_unique
from itmbench.errors import InputError

# Where users unpack the photographs: below the root, under one of the names the archives carry.
IMAGE_FOLDERS = (
    "images",
    "flickr30k-images",
    "flickr30k_images",
    "Images",
    "Flicker8k_Dataset",
    "Flickr8k_Dataset",
)
# COCO: "restval" is the part of the official validation set that papers train on.
SPLITS = {"train": "train", "restval": "train", "val": "val", "test": "test"}
# images, captions, and images to train on, to validate and to test; Karpathy's split.
PUBLISHED = {
    "flickr8k": (8_000, 40_000, 6_000, 1_000, 1_000),
    "flickr30k": (31_014, 155_070, 29_000, 1_014, 1_000),
    "coco": (123_287, 616_767, 113_287, 5_000, 5_000),
}


def _karpathy_inputs(root: Path | str, images: Path | str | None = None, **_: object) -> list[Path]:
    root = Path(root)
    side_files = [path for path in (root / "truth.json", root / "hard_negatives.json") if path.exists()]
    folder = Path(images) if images else _image_folder(root)
    folders = [folder] if folder and folder.is_dir() else []
    return [*_annotation_files(root), *side_files, *folders]


@reads(_karpathy_inputs)
def read_karpathy(root: Path | str, images: Path | str | None = None, name: str | None = None) -> Corpus:
    """A corpus from Karpathy's ``dataset_*.json`` or ``dataset_*.json.gz`` and a folder of images.

    Any number of captions an image. Without a folder of images the corpus has texts only. Two files that corpora with
    known truth carry beside it are read where they exist: ``truth.json`` (``{sentid: [imgid, ...]}``, the images that
    a caption is true of) and ``hard_negatives.json`` (``[[imgid, imgid of its near twin], ...]``).

    Args:
        root: the folder of the one ``dataset_*.json``.
        images: the folder of images; by default one of the usual names below ``root``, or ``root`` itself where
            the images lie in the folders that the file names (COCO: ``val2014/...``).
        name: of the corpus; by default what the file says.

    Raises:
        InputError: files or images are missing, JSON or text is damaged, an entry lacks a field, a caption is empty,
            an id occurs twice, a split is unknown or empty.
    """
    root = Path(root)
    found = _annotation_files(root)
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "none"
        raise InputError(f"{root}: expected one dataset_*.json or dataset_*.json.gz, found {names}")
    source = found[0]
    content = read_json(source)
    entries = content.get("images") if isinstance(content, dict) else None
    if not isinstance(entries, list):
        raise InputError(f"{source}: no list 'images'; expected Karpathy's schema, restore the original file")

    filenames, paths, splits, image_of, text_ids, captions, owners = [], [], [], {}, [], [], []
    for row, entry in enumerate(entries):
        try:
            filename, split, sentences = entry["filename"], entry["split"], entry["sentences"]
            image_of[entry["imgid"]] = row
            text_ids += [str(sentence["sentid"]) for sentence in sentences]
            captions += [_caption(sentence, source) for sentence in sentences]
        except (KeyError, TypeError) as error:
            raise InputError(f"{source}: images[{row}] is not of Karpathy's schema ({error!r}); correct it") from None
        if split not in SPLITS:
            raise InputError(f"{source}: {filename} is of the unknown split {split!r}; use one of {', '.join(SPLITS)}")
        filenames.append(filename)
        paths.append(f"{entry['filepath']}/{filename}" if "filepath" in entry else filename)
        splits.append(SPLITS[split])
        owners += [row] * len(sentences)
    if len(image_of) != len(entries):
        raise InputError(f"{source}: an imgid occurs twice; every id must be unique")
    require_unique(filenames, f"{source}: filename")
    require_unique(text_ids, f"{source}: sentid")

    text_to_image = np.array(owners, dtype=np.int64)
    corpus_name = name or str(content.get("dataset") or source.name.split(".")[0].removeprefix("dataset_"))
    train, stages = _stages(np.array(splits), source)
    return Corpus(
        name=corpus_name,
        image_ids=filenames,
        images=_images(root, images, paths),
        text_ids=text_ids,
        texts=Strings(captions),
        text_to_image=text_to_image,
        train=train,
        stages=stages,
        true_images=_truth(root / "truth.json", image_of, text_ids, text_to_image),
        hard_negatives=_hard_negatives(root / "hard_negatives.json", image_of),
        counts=_counts(corpus_name, len(filenames), len(captions), train, stages),
    )


def _token_inputs(root: Path | str, images: Path | str | None = None, **_: object) -> list[Path]:
    root = Path(root)
    folder = Path(images) if images else _image_folder(root)
    files = [root / "results_20130124.token", *(root / f"{split}.txt" for split in ("train", "val", "test"))]
    return [path for path in files if path.exists()] + ([folder] if folder and folder.is_dir() else [])


@reads(_token_inputs)
def read_flickr30k_tokens(root: Path | str, images: Path | str | None = None, name: str = "flickr30k") -> Corpus:
    r"""Flickr30K as its authors ship it: ``results_20130124.token`` (``name.jpg#k<TAB>caption`` lines) and split lists.

    ``train.txt``, ``val.txt`` and ``test.txt`` list images, one a line, with or without ``.jpg``. Images that no
    list names are left out.

    Args:
        root: the folder of the four files.
        images: the folder of images; by default one of the usual names below ``root``. Without one: texts only.
        name: of the corpus.

    Raises:
        InputError: files or images are missing, a line has no tab or no caption, an image is in two lists, or has no
            caption, a caption id occurs twice.
    """
    root = Path(root)
    tokens = root / "results_20130124.token"
    lists = {split: root / f"{split}.txt" for split in ("train", "val", "test")}
    require([tokens, *lists.values()], "results_20130124.token with train.txt, val.txt and test.txt")
    split_of: dict[str, str] = {}
    for split, path in lists.items():
        for at, line in enumerate(read_lines(path), start=1):
            image = line.strip()
            if not image:
                continue
            image = image if image.endswith(".jpg") else f"{image}.jpg"
            if image in split_of:
                raise InputError(f"{path}, line {at}: {image} is already in {split_of[image]}.txt; list it once")
            split_of[image] = split

    row_of: dict[str, int] = {}
    text_ids, captions, owners = [], [], []
    for at, line in enumerate(read_lines(tokens), start=1):
        text_id, tab, caption = line.partition("\t")
        image, mark, _ = text_id.rpartition("#")
        if not tab or not mark or not caption.strip():
            raise InputError(f"{tokens}, line {at}: expected 'name.jpg#k<TAB>caption', found {line[:60]!r}")
        if image not in split_of:
            continue
        text_ids.append(text_id)
        captions.append(caption.strip())
        owners.append(row_of.setdefault(image, len(row_of)))
    silent = next((image for image in split_of if image not in row_of), None)
    if silent is not None:
        raise InputError(f"{tokens}: no caption of {silent}, which {split_of[silent]}.txt lists; correct the list")
    require_unique(text_ids, str(tokens))

    filenames = list(row_of)
    train, stages = _stages(np.array([split_of[image] for image in filenames]), root)
    return Corpus(
        name=name,
        image_ids=filenames,
        images=_images(root, images, filenames),
        text_ids=text_ids,
        texts=Strings(captions),
        text_to_image=np.array(owners, dtype=np.int64),
        train=train,
        stages=stages,
        counts=_counts(name, len(filenames), len(captions), train, stages),
    )


def _annotation_files(root: Path) -> list[Path]:
    return sorted([*root.glob("dataset_*.json"), *root.glob("dataset_*.json.gz")])


def _caption(sentence: dict[str, Any], source: Path) -> str:
    """What the annotator wrote, or the tokens where only these exist."""
    caption = str(sentence["raw"] if "raw" in sentence else " ".join(sentence["tokens"])).strip()
    if not caption:
        raise InputError(f"{source}: the caption with sentid {sentence['sentid']} is empty; remove it or complete it")
    return caption


def _image_folder(root: Path) -> Path | None:
    """Where the images are by default; COCO's lie in ``train2014`` and ``val2014`` below the root."""
    named = first_folder(root / name for name in IMAGE_FOLDERS)
    return named or (root if any((root / part).is_dir() for part in ("train2014", "val2014")) else None)


def _images(root: Path, images: Path | str | None, paths: Sequence[str]) -> ImageFiles | None:
    folder = Path(images) if images else _image_folder(root)
    if folder is None:
        return None
    require([folder], "the folder of images")
    return image_files(folder, paths)


def _stages(splits: np.ndarray[Any, Any], source: Path) -> tuple[Rows, dict[str, Stage]]:
    """Training rows, and for "val" and "test" a stage in which all of the split's images meet each other."""
    rows = {split: np.flatnonzero(splits == split) for split in ("train", "val", "test")}
    empty = [split for split in rows if not len(rows[split])]
    if empty:
        raise InputError(f"{source}: no image is of the split {' or '.join(empty)}; train, val and test are needed")
    return rows["train"], {split: Stage(rows[split], rows[split]) for split in ("val", "test")}


def _counts(name: str, images: int, captions: int, train: Rows, stages: dict[str, Stage]) -> list[Count]:
    what = ("images", "captions", "training images", "validation images", "test images")
    found = (images, captions, len(train), len(stages["val"].queries), len(stages["test"].queries))
    published = PUBLISHED.get(name, (None,) * len(what))
    return [Count(*row) for row in zip(what, found, published, strict=True)]


def _truth(path: Path, image_of: dict[Any, int], text_ids: list[str], text_to_image: Rows) -> list[Rows] | None:
    if not path.exists():
        return None
    listed: dict[str, list[int]] = read_json(path)
    unknown = listed.keys() - set(text_ids)
    if unknown:
        raise InputError(f"{path}: no caption has the sentid {min(unknown)}; write the file anew with its dataset")
    truth = [np.unique(_rows(listed.get(text, []), image_of, path)) for text in text_ids]
    for text, rows, own in zip(text_ids, truth, text_to_image, strict=True):
        if len(rows) and own not in rows:
            raise InputError(f"{path}: the caption {text} is not listed as true of its own image; add that image")
    return truth


def _hard_negatives(path: Path, image_of: dict[Any, int]) -> Rows | None:
    if not path.exists():
        return None
    return np.array([_rows(pair, image_of, path) for pair in read_json(path)], dtype=np.int64).reshape(-1, 2)


def _rows(image_ids: list[int], image_of: dict[Any, int], path: Path) -> Rows:
    unknown = next((each for each in image_ids if each not in image_of), None)
    if unknown is not None:
        raise InputError(f"{path}: no image has the imgid {unknown}; write the file anew with its dataset")
    return np.array([image_of[each] for each in image_ids], dtype=np.int64)


class KarpathyCaptions(CorpusDataModule):
    """Photographs with captions in Karpathy's JSON: Flickr8k, Flickr30K, COCO or a dataset of your own.

    Args:
        root: the folder of ``dataset_*.json`` (or ``.json.gz``).
        images: the folder of images; by default one of the usual names below ``root``.
        name: of the dataset; by default what the file says.
        **kwargs: those of ``CorpusDataModule``.
    """

    def __init__(self, root: str, images: str | None = None, name: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.root, self.images, self.name = root, images, name

    def read(self) -> Corpus:
        return cached(read_karpathy, self.root, images=self.images, name=self.name)


class Flickr30KTokens(CorpusDataModule):
    """Flickr30K as its authors ship it: ``results_20130124.token`` with split lists.

    Args:
        root: the folder of the token file and of ``train.txt``, ``val.txt`` and ``test.txt``.
        images: the folder of images; by default one of the usual names below ``root``.
        **kwargs: those of ``CorpusDataModule``.
    """

    def __init__(self, root: str, images: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.root, self.images = root, images

    def read(self) -> Corpus:
        return cached(read_flickr30k_tokens, self.root, images=self.images)
