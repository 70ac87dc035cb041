"""Photographs with captions in Karpathy's ``dataset_*.json``.

These files (Karpathy & Fei-Fei, "Deep Visual-Semantic Alignments for Generating Image Descriptions", CVPR 2015)
hold Flickr8k, Flickr30K and COCO in one schema, with the splits that image-text matching papers use.
"""

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from types import NoneType
from typing import Any
from unicodedata import normalize

import numpy as np
from numpy.typing import NDArray

from itmbench.data.corpus import Corpus, Count, ImageFiles, Rows, Stage, Strings
from itmbench.data.datamodule import CorpusDataModule
from itmbench.data.reading import (
    first_folder,
    image_files,
    is_unicode,
    read_json,
    require,
    require_prepared,
    require_shared_labels,
    require_unique,
)
from itmbench.errors import InputError
from itmbench.files import real_path

IMAGE_FOLDERS = (
    "images",
    "flickr30k-images",
    "flickr30k_images",
    "Images",
    "Flicker8k_Dataset",
    "Flickr8k_Dataset",
)
"""Names under which the archives unpack their images."""
SPLITS = {"train": "train", "restval": "train", "val": "val", "test": "test"}
"""Karpathy's splits. COCO's "restval" is the part of its validation set that papers train on."""
PUBLISHED = {
    "flickr8k": (8_000, 40_000, 6_000, 1_000, 1_000),
    "flickr30k": (31_014, 155_070, 29_000, 1_014, 1_000),
    "coco": (123_287, 616_767, 113_287, 5_000, 5_000),
}
"""Images, captions, and training, validation and test images of Karpathy's splits."""


class KarpathyCaptions(CorpusDataModule):
    """Captioned photographs in Karpathy's JSON: Flickr8k, Flickr30K, COCO or a dataset of your own.

    Images may have any number of captions. Two optional files beside the JSON describe corpora with known truth:
    ``truth.json``, ``{sentid: [imgid, ...]}``, lists all images that a caption is true of, and
    ``hard_negatives.json``, ``[[imgid, imgid], ...]``, pairs images with their near twins.

    An image may have ``labels``, a list of names, which then every image needs (an empty list for none): the corpus is
    evaluated by label retrieval, and the "captions" may be tags.

    Args:
        root: the folder with exactly one ``dataset_*.json`` or ``dataset_*.json.gz``.
        images: the image folder. By default the first of the usual names below ``root``, or ``root`` itself if it has
            COCO's ``train2014`` or ``val2014``. If none of these exists, the corpus has texts only.
        name: the dataset's name; by default what the JSON says.
        annotations: the JSON's file name in ``root``, if it is another or one of several.
        **kwargs: arguments of ``CorpusDataModule``.

    Raises:
        InputError: while reading: files or images are missing, JSON or text is damaged, an entry lacks a field, a
            caption is empty, an id occurs twice, a split is unknown or empty.
    """

    def __init__(
        self,
        root: str | Path,
        images: str | Path | None = None,
        name: str | None = None,
        annotations: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.root, self.images, self.name = real_path(root), image_folder(root, images), name
        self.annotations = annotations

    def inputs(self) -> list[Path]:
        folders = [self.images] if self.images else []
        return [*self._annotations(), self.root / "truth.json", self.root / "hard_negatives.json", *folders]

    def read(self) -> Corpus:
        annotations = self._annotations()
        if len(annotations) != 1:
            names = ", ".join(path.name for path in annotations) or "none"
            require_prepared(self.root)
            raise InputError(f"{self.root}: expected one dataset_*.json or dataset_*.json.gz, found {names}")
        source = annotations[0]
        content = read_json(source)
        entries = content.get("images") if isinstance(content, dict) else None
        if not isinstance(entries, list):
            raise InputError(f"{source}: no list 'images'; expected Karpathy's schema, restore the original file")

        filenames, paths, splits, row_of_id, text_ids, captions, owners = [], [], [], {}, [], [], []
        for row, entry in enumerate(entries):
            try:
                filename, split = _field(entry, "filename", str), _field(entry, "split", str)
                folder = _field(entry, "filepath", str, NoneType) if "filepath" in entry else None
                sentences = _field(entry, "sentences", list)
                row_of_id[_field(entry, "imgid", int, str)] = row
                text_ids += [str(_field(sentence, "sentid", int, str)) for sentence in sentences]
                captions += [_caption(sentence) for sentence in sentences]
            except TypeError as error:
                raise InputError(
                    f"{source}: images[{row}] does not follow Karpathy's schema ({error}); correct it"
                ) from None
            if split not in SPLITS:
                raise InputError(f"{source}: {filename} has the unknown split {split!r}; use {', '.join(SPLITS)}")
            if not sentences and SPLITS[split] != "train":
                raise InputError(f"{source}: {filename} of the split {split} has no caption; add one or remove it")
            filenames.append(filename)
            paths.append(PurePosixPath(folder or "", filename).as_posix())
            splits.append(SPLITS[split])
            owners += [row] * len(sentences)
        if len(row_of_id) != len(entries):
            raise InputError(f"{source}: an imgid occurs twice; every id must be unique")
        require_unique(paths, f"{source}: filename")
        image_ids = filenames if len(set(filenames)) == len(filenames) else paths  # two folders may share a name
        require_unique(text_ids, f"{source}: sentid")

        text_to_image = np.array(owners, dtype=np.int64)
        labels, label_names = _labels(entries, source)
        name = self.name or str(content.get("dataset") or source.name.split(".")[0].removeprefix("dataset_"))
        train, stages = split_stages(np.array(splits), source)
        if labels is not None:
            require_shared_labels(labels, stages, source)
        return Corpus(
            name=name,
            image_ids=image_ids,
            images=find_images(self.images, paths),
            text_ids=text_ids,
            texts=Strings(captions),
            text_to_image=text_to_image,
            train=train,
            stages=stages,
            labels=labels,
            label_names=label_names,
            true_images=_truth(self.root / "truth.json", row_of_id, text_ids, text_to_image),
            hard_negatives=_hard_negatives(self.root / "hard_negatives.json", row_of_id),
            counts=count(name, len(filenames), len(captions), train, stages),
        )

    def _annotations(self) -> list[Path]:
        if self.annotations:
            require([self.root / self.annotations], "annotations")
            return [self.root / self.annotations]
        return sorted([*self.root.glob("dataset_*.json"), *self.root.glob("dataset_*.json.gz")])


def _field(entry: dict[str, Any], key: str, *types: type) -> Any:
    """A value of an entry that has one of these types.

    Raises:
        TypeError: there is none, it has another type, or is a text that cannot be written as UTF-8.
    """
    _require_one(entry, key)
    value = entry[key]
    if type(value) not in types:
        raise TypeError(f"{key} is {value!r:.60}")
    if isinstance(value, str) and (not value.strip() or not is_unicode(value)):
        raise TypeError(f"{key} is {value!r:.60}")
    return value


def _require_one(entry: Any, *keys: str) -> None:
    """Raise a TypeError if an entry has none of these keys."""
    if not isinstance(entry, dict):
        raise TypeError(f"{entry!r:.60} is not an object")
    if not any(key in entry for key in keys):
        names = ", ".join(map(repr, entry)) or "none"
        raise TypeError(f"no {' or '.join(map(repr, keys))}; its keys are {names:.100}")


def _caption(sentence: dict[str, Any]) -> str:
    """The annotator's text, or the joined tokens if the file has only these; errors as `_field`."""
    _require_one(sentence, "raw", "tokens")
    if "raw" not in sentence:
        tokens = _field(sentence, "tokens", list)
        if not all(isinstance(token, str) for token in tokens):
            raise TypeError(f"sentid {sentence['sentid']} has tokens that are not texts")
    caption = sentence["raw"] if "raw" in sentence else " ".join(tokens)
    if not isinstance(caption, str) or not caption.strip() or not is_unicode(caption):
        raise TypeError(f"sentid {sentence['sentid']} has the caption {caption!r:.60}")
    return caption.strip()


def _labels(entries: list[dict[str, Any]], source: Path) -> tuple[NDArray[np.uint8] | None, list[str]]:
    """Multi-hot labels `[Ni, C]` and their names in alphabetical order; None if no image has ``labels``."""
    lists = [entry.get("labels") for entry in entries]
    if all(labels is None for labels in lists):
        return None, []
    for row, labels in enumerate(lists):
        if not isinstance(labels, list) or not all(
            isinstance(label, str) and label.strip() and is_unicode(label) for label in labels
        ):
            raise InputError(
                f"{source}: images[{row}] has no list of names as labels, and other images have labels; "
                "correct it, with an empty list if none applies"
            )
    clean = [[normalize("NFC", label).strip() for label in labels or ()] for labels in lists]
    names = sorted({label for labels in clean for label in labels})
    if not names:
        raise InputError(f"{source}: no image has a label; list some, or remove the empty labels")
    column = {label: index for index, label in enumerate(names)}
    multi_hot = np.zeros((len(clean), len(names)), dtype=np.uint8)
    for row, labels in enumerate(clean):
        multi_hot[row, [column[label] for label in labels]] = 1
    return multi_hot, names


def image_folder(root: str | Path, images: str | Path | None) -> Path | None:
    """The given image folder, else the default one if it exists; COCO's images lie in folders below the root itself."""
    if images:
        return real_path(images)
    root = real_path(root)
    coco = any((root / part).is_dir() for part in ("train2014", "val2014"))
    return first_folder(root / name for name in IMAGE_FOLDERS) or (root if coco else None)


def find_images(folder: Path | None, paths: Sequence[str]) -> ImageFiles | None:
    """The images of a folder by their paths; None without a folder."""
    if folder is None:
        return None
    require([folder], "the folder of images")
    return image_files(folder, paths)


def split_stages(splits: np.ndarray[Any, Any], source: Path) -> tuple[Rows, dict[str, Stage]]:
    """Training rows, and the stages "val" and "test", in which a split's images are both queries and gallery."""
    rows = {split: np.flatnonzero(splits == split) for split in ("train", "val", "test")}
    empty = [split for split in rows if not len(rows[split])]
    if empty:
        raise InputError(f"{source}: no image is in the split {' or '.join(empty)}; train, val and test are needed")
    return rows["train"], {split: Stage(rows[split], rows[split]) for split in ("val", "test")}


def count(name: str, images: int, captions: int, train: Rows, stages: dict[str, Stage]) -> list[Count]:
    """The counts of a dataset beside the published ones of its name."""
    what = ("images", "captions", "training images", "validation images", "test images")
    found = (images, captions, len(train), len(stages["val"].queries), len(stages["test"].queries))
    published = PUBLISHED.get(name, (None,) * len(what))
    return [Count(*row) for row in zip(what, found, published, strict=True)]


def _truth(path: Path, row_of_id: dict[Any, int], text_ids: list[str], text_to_image: Rows) -> list[Rows] | None:
    if not path.exists():
        return None
    listed = read_json(path, unique=True)
    if not isinstance(listed, dict):
        raise InputError(f"{path}: not an object; expected {{sentid: [imgid, ...]}}")
    unknown = listed.keys() - set(text_ids)
    if unknown:
        raise InputError(f"{path}: no caption has the sentid {min(unknown)}; recreate the file for this dataset")
    truth = [np.unique(_rows(listed.get(text, []), row_of_id, path)) for text in text_ids]
    for text, rows, image in zip(text_ids, truth, text_to_image, strict=True):
        if len(rows) and image not in rows:
            raise InputError(f"{path}: the caption {text} is not listed as true of its own image; add that image")
    return truth


def _hard_negatives(path: Path, row_of_id: dict[Any, int]) -> Rows | None:
    if not path.exists():
        return None
    pairs = read_json(path)
    odd = (
        [pair for pair in pairs if not isinstance(pair, list) or len(pair) != 2] if isinstance(pairs, list) else [pairs]
    )
    if odd:
        raise InputError(f"{path}: {odd[0]!r:.60} is not a pair; expected [[imgid, imgid], ...]")
    return np.array([_rows(pair, row_of_id, path) for pair in pairs], dtype=np.int64).reshape(-1, 2)


def _rows(image_ids: Any, row_of_id: dict[Any, int], path: Path) -> Rows:
    if not isinstance(image_ids, list) or not all(isinstance(image, int | str) for image in image_ids):
        raise InputError(f"{path}: {image_ids!r:.60} is not a list of imgids; recreate the file for this dataset")
    unknown = next((image for image in image_ids if image not in row_of_id), None)
    if unknown is not None:
        raise InputError(f"{path}: no image has the imgid {unknown}; recreate the file for this dataset")
    return np.array([row_of_id[image] for image in image_ids], dtype=np.int64)
