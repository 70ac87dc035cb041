"""nuswide-mini: tagged scenes with concepts in the layout of NUS-WIDE."""

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from itmbench.data.mini.albums import IRRELEVANT, TOPICS, Upload, overlook, sample_upload, write_lines
from itmbench.data.mini.language import WORDS
from itmbench.data.mini.paint import save_all
from itmbench.data.mini.scene import COLOURS, SHAPES, TEXTURES, Scene

# Every pair of colour and shape, every texture, and night. The scenes decide which 21 are the most frequent.
_PAIRS = (f"{colour}_{shape}" for colour in COLOURS for shape in SHAPES)
CONCEPTS = sorted(["night", *(texture for texture in TEXTURES if texture != "plain"), *_PAIRS])
# One word in eight is missing, because no real tag list has every word that users know.
_TAGS = (
    *(word for words in WORDS.values() for word in words),
    *("night", "dark"),
    *(tag for topic in TOPICS for tag in topic.tags),
    *IRRELEVANT,
)
TAG_LIST = tuple(tag for position, tag in enumerate(dict.fromkeys(_TAGS)) if position % 8 != 7)


@dataclass(frozen=True)
class Row:
    """One row of every file: the image and what it shows."""

    folder: str
    name: str
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
    paths = [root / "Flickr" / row.folder / row.name for row in rows]
    save_all([row.upload.scene for row in rows], [row.upload.seed for row in rows], paths, pixels)
    write_lines(root / "ImageList" / "Imagelist.txt", (f"{row.folder}\\{row.name}" for row in rows))
    write_lines(root / "ConceptsList" / "Concepts81.txt", CONCEPTS)
    for concept in CONCEPTS:
        flags = (str(int(concept in row.concepts)) for row in rows)
        write_lines(root / "Groundtruth" / "AllLabels" / f"Labels_{concept}.txt", flags)
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
        name = f"{numbers[folder]:04d}_{photo_ids[index]}.jpg"
        rows.append(Row(folder, name, photo_ids[index], uploads[index], annotated[index]))
    return rows


def _write_tags(folder: Path, rows: Sequence[Row]) -> None:
    """Write all tags by photo id, and the 0/1 matrix over the tag list with the genuine file's trailing tabs."""
    write_lines(folder / "All_Tags.txt", (" ".join((str(row.photo_id), *row.upload.tags)) for row in rows))
    write_lines(folder / "TagList1k.txt", TAG_LIST)
    flags = ("".join(f"{int(tag in row.upload.tags)}\t" for tag in TAG_LIST) for row in rows)
    write_lines(folder / "AllTags1k.txt", flags)
