"""Small datasets in the genuine on-disk layouts, written by hand for the tests of the readers."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from itmbench.data.corpus import Corpus, Stage, Strings


def tiny_corpus(texts_of_image: Sequence[int], **changes: Any) -> Corpus:
    """A corpus without images, given the number of each image's texts; every image trains and tests."""
    owners = np.repeat(np.arange(len(texts_of_image)), texts_of_image)
    rows = np.arange(len(texts_of_image))
    fields: dict[str, Any] = {
        "name": "c",
        "image_ids": [f"i{row}" for row in rows],
        "images": None,
        "text_ids": [f"t{row}" for row in range(len(owners))],
        "texts": Strings([f"text {row}" for row in range(len(owners))]),
        "text_to_image": owners,
        "train": rows,
        "stages": {"test": Stage(rows, rows)},
    }
    return Corpus(**(fields | changes))


def write_lines(path: Path, lines: Sequence[object], ending: str = "\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes("".join(f"{line}{ending}" for line in lines).encode())
    return path


def write_image(path: Path, number: int) -> None:
    """An image that `numbers_of` knows again, up to 12."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4), (20 * number,) * 3).save(path)


def numbers_of(images: Any) -> list[int]:
    """The numbers that all images of a corpus were written with."""
    return [round(images[row].getpixel((0, 0))[0] / 20) for row in range(len(images))]


def karpathy_entries() -> list[dict[str, Any]]:
    """Six images, with one to four captions each; image ids and caption ids do not follow rows."""
    entries, sentid = [], 100
    for row, (split, captions) in enumerate(
        [("train", 2), ("test", 1), ("train", 3), ("val", 4), ("test", 2), ("val", 1)]
    ):
        ids = range(sentid, sentid + captions)
        entries.append(
            {
                "filename": f"{row}.jpg",
                "imgid": 10 + row,
                "split": split,
                "sentids": list(ids),
                "sentences": [
                    {"raw": f"Caption {i}.", "tokens": ["caption", str(i)], "sentid": i, "imgid": 10 + row} for i in ids
                ],
            }
        )
        sentid += captions
    return entries


def write_karpathy(root: Path, entries: list[dict[str, Any]], images: str | None = "images") -> Path:
    """``dataset_small.json`` and, where ``images`` names a folder, the images in it."""
    root.mkdir(parents=True, exist_ok=True)
    content = {"dataset": "small", "images": entries}
    (root / "dataset_small.json").write_text(json.dumps(content), encoding="utf-8")
    if images:
        for row, entry in enumerate(entries):
            write_image(root / images / entry.get("filepath", "") / entry["filename"], row)
    return root


# Tags of images 1 to 8; "rare" is not in the vocabulary.
MIRFLICKR_TAGS = [["sun", "sea"], ["rare"], ["sea", "rare", "sun"], [], ["dog"], ["sea"], ["dog", "sun"], ["sun"]]
MIRFLICKR_LABELS = {
    "water": [1, 2, 3, 6],
    "animals": [5, 7],
    "animals_r1": [5],
    "people": [4, 7],
    "people_r1": [7],
}


def write_mirflickr(
    root: Path,
    tags: Sequence[Sequence[str]] = MIRFLICKR_TAGS,
    labels: Mapping[str, Sequence[object]] = MIRFLICKR_LABELS,
    annotations: str = "mirflickr25k_annotations_v080",
    images: bool = True,
) -> Path:
    """Images 1 to N with their tags, a vocabulary and label files with a README beside."""
    base = root / "mirflickr"
    for number, each in enumerate(tags, start=1):
        write_lines(base / "meta" / "tags" / f"tags{number}.txt", each)
        if images:
            write_image(base / f"im{number}.jpg", number)
    write_lines(base / "doc" / "common_tags.txt", ["sun 40", "sea 30", "dog 20"])
    for label, numbers in labels.items():
        write_lines(root / annotations / f"{label}.txt", numbers)
    write_lines(root / annotations / "README.txt", ["not a label"])
    return root


NUSWIDE_PATHS = [
    "actor\\0001_111.jpg",
    "actor\\0002_222.jpg",
    "zebra\\0001_333.jpg",
    "zebra\\0002_111.jpg",
    "zebra\\0003_444.jpg",
]
NUSWIDE_TAGS = [["zoo", "sky", "odd"], ["sky"], ["odd"], ["sky", "zoo"], ["tree", "sky"]]
NUSWIDE_VOCABULARY = ["sky", "tree", "zoo"]
# Rows 0 to 4; "sky" is the most frequent, "animal" and "person" tie.
NUSWIDE_LABELS = {"person": [1, 0, 0, 1, 0], "sky": [1, 0, 1, 1, 0], "animal": [0, 0, 1, 0, 1], "cow": [0, 0, 0, 0, 0]}


def write_nuswide(
    root: Path,
    paths: Sequence[str] = NUSWIDE_PATHS,
    tags: Sequence[Sequence[str]] = NUSWIDE_TAGS,
    labels: Mapping[str, Sequence[int]] = NUSWIDE_LABELS,
    ending: str = "\n",
    images: str | None = "foldered",
) -> Path:
    """Image list, labels and both tag files; images in folders, or "flat" in one folder, or None."""
    photo_ids = [path.rpartition("_")[2].removesuffix(".jpg") for path in paths]
    write_lines(root / "ImageList" / "Imagelist.txt", paths, ending)
    write_lines(root / "ConceptsList" / "Concepts81.txt", list(labels), ending)
    for concept, flags in labels.items():
        write_lines(root / "Groundtruth" / "AllLabels" / f"Labels_{concept}.txt", flags, ending)
    folder = root / "NUS_WID_Tags"
    named = [" ".join([photo_id, *words]) for photo_id, words in zip(photo_ids, tags, strict=True)]
    write_lines(folder / "All_Tags.txt", named, ending)
    write_lines(folder / "TagList1k.txt", NUSWIDE_VOCABULARY, ending)
    bits = ["".join(f"{int(tag in words)}\t" for tag in NUSWIDE_VOCABULARY) for words in tags]
    write_lines(folder / "AllTags1k.txt", bits, ending)
    for row, path in enumerate(paths if images else ()):
        place = path.replace("\\", "/")
        write_image(root / "Flickr" / (place if images == "foldered" else place.rpartition("/")[2]), row)
    return root


def write_regions(root: Path, copies: int = 1) -> Path:
    """4, 2 and 3 images with 5 captions each, stored ``copies`` times; the features of an image are its number."""
    root.mkdir(parents=True, exist_ok=True)
    first = 0
    for split, images in (("train", 4), ("dev", 2), ("test", 3)):
        numbers = np.arange(first, first + images, dtype=np.float32)
        array = np.broadcast_to(numbers[:, None, None], (images, 3, 4)).repeat(copies, axis=0)
        np.save(root / f"{split}_ims.npy", array)
        write_lines(root / f"{split}_caps.txt", [f"image {int(n)} caption {k}" for n in numbers for k in range(5)])
        first += images
    return root
