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

# Every pair of colour and shape, every texture, and night. The scenes decide which 21 are the most frequent.
CONCEPTS = tuple(
    sorted(
        ["night"]
        + [texture for texture in TEXTURES if texture != "plain"]
        + [f"{colour}_{shape}" for colour in COLOURS for shape in SHAPES]
    )
)
# One word in eight is missing, because no real tag list has every word that users know.
TAG_LIST = tuple(
    tag
    for position, tag in enumerate(
        dict.fromkeys(
            (
                *(word for words in WORDS.values() for word in words),
                *("night", "dark"),
                *(tag for topic in TOPICS for tag in topic.tags),
                *IRRELEVANT,
            )
        )
    )
    if position % 8 != 7
)


@dataclass(frozen=True)
class Row:
    """One row of every file: the place of the image and what it shows."""

    folder: str
    number: int
    photo_id: int
    upload: Upload
    concepts: frozenset[str]


def render_nuswide(root: Path, seed: int = 0, *, images: int = 2400, repeated: int = 6, pixels: int = 64) -> None:
    """Write the corpus below ``root``.

    Args:
        root: the folder; created if missing.
        seed: the same seed gives the same bytes.
        images: number of rows.
        repeated: number of rows that repeat the photograph of another row under the same photo id.
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
    """Concepts of a scene: colour and shape of every thing, night, and the texture unless it is plain."""
    return frozenset(f"{thing.colour}_{thing.shape}" for thing in scene.things) | (
        {scene.texture, scene.light} - {"plain", "day"}
    )


def _rows(rng: random.Random, images: int, repeated: int) -> list[Row]:
    """Rows sorted by topic folder as in the genuine list; repeated photographs come last in theirs."""
    uploads = [sample_upload(rng, (2, 3, 3), loyalty=0.9) for _ in range(images - repeated)]
    photo_ids = rng.sample(range(10_000_000, 2_900_000_000), len(uploads))
    annotated = [concepts(overlook(upload.scene, rng)) for upload in uploads]
    twice = sorted(rng.sample(range(len(uploads)), repeated))
    filed = [(uploads[index].topic.name, False, index) for index in range(len(uploads))]
    for index in twice:
        other_topics = [topic.name for topic in TOPICS if topic != uploads[index].topic]
        filed.append((rng.choice(other_topics), True, index))
    numbers: Counter[str] = Counter()
    rows = []
    for folder, _, index in sorted(filed):
        numbers[folder] += 1
        rows.append(Row(folder, numbers[folder], photo_ids[index], uploads[index], annotated[index]))
    return rows


def _write_tags(folder: Path, rows: Sequence[Row]) -> None:
    """Write all tags by photo id, and the 0/1 matrix over the tag list with the genuine file's trailing tabs."""
    _write_lines(folder / "All_Tags.txt", (" ".join((str(row.photo_id), *row.upload.tags)) for row in rows))
    _write_lines(folder / "TagList1k.txt", TAG_LIST)
    flags = ("".join(f"{int(tag in row.upload.tags)}\t" for tag in TAG_LIST) for row in rows)
    _write_lines(folder / "AllTags1k.txt", flags)


def _filename(row: Row) -> str:
    return f"{row.number:04d}_{row.photo_id}.jpg"


def _write_lines(path: Path, lines: Iterable[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes("".join(f"{line}\n" for line in lines).encode())
