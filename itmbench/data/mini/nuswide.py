"""nuswide-mini: tagged scenes with concepts in the layout of NUS-WIDE."""

import random
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from itmbench.data.mini.albums import IRRELEVANT, TOPICS, Upload, overlook, sample_upload
from itmbench.data.mini.language import WORDS
from itmbench.data.mini.paint import save_all
from itmbench.data.mini.scene import COLOURS, SHAPES, TEXTURES, Scene

# Every pair of colour and shape, every texture, and night; which 21 are the most frequent follows from the scenes.
CONCEPTS = tuple(
    sorted(
        ["night"]
        + [texture for texture in TEXTURES if texture != "plain"]
        + [f"{colour}_{shape}" for colour in COLOURS for shape in SHAPES]
    )
)
# One word in eight goes missing from the tag list: a list made on another day does not have every word users know.
TAG_LIST = tuple(
    tag
    for at, tag in enumerate(
        dict.fromkeys(
            (
                *(word for words in WORDS.values() for word in words),
                *("night", "dark"),
                *(tag for topic in TOPICS for tag in topic.tags),
                *IRRELEVANT,
            )
        )
    )
    if at % 8 != 7
)


@dataclass(frozen=True)
class Row:
    """One row of every file: where the image is, and what it shows."""

    folder: str
    number: int
    photo_id: int
    upload: Upload
    concepts: frozenset[str]


def render_nuswide(root: Path, seed: int = 0, *, images: int = 2400, repeated: int = 6, pixels: int = 64) -> None:
    """Write the corpus below ``root``.

    Args:
        root: a folder; made if it is not there.
        seed: same seed, same bytes.
        images: number of rows.
        repeated: how many of the rows repeat the photograph of another row under the same photo id.
        pixels: side of the images.
    """
    rows = _rows(random.Random(f"nuswide-mini {seed}"), images, repeated)
    for folder in sorted({row.folder for row in rows}):
        (root / "Flickr" / folder).mkdir(parents=True)
    paths = [root / "Flickr" / row.folder / _filename(row) for row in rows]
    save_all([row.upload.scene for row in rows], [row.upload.seed for row in rows], paths, pixels)
    _write_lines(root / "ImageList" / "Imagelist.txt", (f"{row.folder}\\{_filename(row)}" for row in rows))
    _write_lines(root / "ConceptsList" / "Concepts81.txt", CONCEPTS)
    for concept in CONCEPTS:
        flags = (str(int(concept in row.concepts)) for row in rows)
        _write_lines(root / "Groundtruth" / "AllLabels" / f"Labels_{concept}.txt", flags)
    _write_tags(root / "NUS_WID_Tags", rows)


def concepts(scene: Scene) -> frozenset[str]:
    """The concepts of a scene: every thing by colour and shape, night, and the background unless it is plain."""
    return frozenset(f"{thing.colour}_{thing.shape}" for thing in scene.things) | (
        {scene.texture, scene.light} - {"plain", "day"}
    )


def _rows(rng: random.Random, images: int, repeated: int) -> list[Row]:
    """Uploads filed by topic, in folders in order as in the genuine list; a repeated photograph ends its folder."""
    uploads = [sample_upload(rng, (2, 3, 3), loyalty=0.9) for _ in range(images - repeated)]
    photo_ids = rng.sample(range(10_000_000, 2_900_000_000), len(uploads))
    shown = [concepts(overlook(upload.scene, rng)) for upload in uploads]
    again = sorted(rng.sample(range(len(uploads)), repeated))
    filed = sorted([(uploads[at].topic.name, False, at) for at in range(len(uploads))])
    elsewhere = [(rng.choice([t.name for t in TOPICS if t != uploads[at].topic]), True, at) for at in again]
    numbers: Counter[str] = Counter()
    rows = []
    for folder, _, at in sorted(filed + elsewhere):
        numbers[folder] += 1
        rows.append(Row(folder, numbers[folder], photo_ids[at], uploads[at], shown[at]))
    return rows


def _write_tags(folder: Path, rows: Sequence[Row]) -> None:
    """All tags by photo id, and the 0/1 matrix over the tag list with the trailing tab of the genuine file."""
    _write_lines(folder / "All_Tags.txt", (" ".join((str(row.photo_id), *row.upload.tags)) for row in rows))
    _write_lines(folder / "TagList1k.txt", TAG_LIST)
    flags = ("".join(f"{int(tag in row.upload.tags)}\t" for tag in TAG_LIST) for row in rows)
    _write_lines(folder / "AllTags1k.txt", flags)


def _filename(row: Row) -> str:
    return f"{row.number:04d}_{row.photo_id}.jpg"


def _write_lines(path: Path, lines: Iterable[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes("".join(f"{line}\n" for line in lines).encode())
