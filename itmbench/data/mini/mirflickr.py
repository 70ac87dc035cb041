"""mirflickr-mini: tagged scenes with multi-labels in the layout of MirFlickr-25K and its annotation archive."""

import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from itmbench.data.mini.albums import overlook, sample_upload, write_lines
from itmbench.data.mini.paint import save_all
from itmbench.data.mini.scene import COLOURS, SHAPES, TEXTURES, Scene

COMMON = 20
"""Tags used at least this often make the vocabulary, as in the genuine archive."""
ARRANGEMENTS = ("crowd", "giants", "night", "side_by_side", "stacked")

README = (
    "Labels of mirflickr-mini. <label>.txt holds the numbers of the images that a label may apply to, one a line;",
    "<label>_r1.txt those to which it clearly applies.",
)


def render_mirflickr(root: Path, seed: int = 0, *, images: int = 2400, pixels: int = 64) -> None:
    """Write the corpus below ``root``.

    Args:
        root: the folder; created if missing.
        seed: the same seed gives the same bytes.
        images: number of images.
        pixels: side of the images.
    """
    rng = random.Random(f"mirflickr-mini {seed}")
    uploads = [sample_upload(rng, (1, 1, 1, 1, 1, 2, 2, 3), loyalty=0.4) for _ in range(images)]
    folder = root / "mirflickr"
    folder.mkdir(parents=True)
    paths = [folder / f"im{number}.jpg" for number in range(1, images + 1)]
    save_all([upload.scene for upload in uploads], [upload.seed for upload in uploads], paths, pixels)
    for number, upload in enumerate(uploads, 1):
        write_lines(folder / "meta" / "tags" / f"tags{number}.txt", upload.tags)
    counts = Counter(tag for upload in uploads for tag in upload.tags)
    common = sorted((-count, tag) for tag, count in counts.items() if count >= COMMON)
    write_lines(folder / "doc" / "common_tags.txt", (f"{tag} {-count}" for count, tag in common))
    _write_annotations(root / "mirflickr25k_annotations_v080", [overlook(upload.scene, rng) for upload in uploads])


def labels(scene: Scene) -> dict[str, bool]:
    """Potential labels of a scene, each with whether the stricter label applies as well.

    A shape applies if any thing has it, and strictly if a large thing does. A colour applies if a large thing has it,
    and strictly if no other thing is large. Textures, night and arrangements have no stricter form.
    """
    large = [thing for thing in scene.things if thing.size == "large"]
    facts = {thing.shape: thing.size == "large" for thing in scene.things}
    facts |= {thing.colour: len(large) == 1 for thing in large}
    rows, columns = {thing.row for thing in scene.things}, {thing.column for thing in scene.things}
    two = len(scene.things) == 2
    others = {
        scene.texture: scene.texture != "plain",
        "night": scene.light == "night",
        "crowd": len(scene.things) == 3,
        "giants": len(large) == len(scene.things) > 1,
        "side_by_side": two and len(rows) == 1,
        "stacked": two and len(columns) == 1,
    }
    return facts | {label: False for label, applies in others.items() if applies}


def _write_annotations(folder: Path, scenes: Sequence[Scene]) -> None:
    """Write the image numbers of every label and stricter label, as in the genuine archive with 24 and 14 of them."""
    write_lines(folder / "README.txt", README)
    stricter = (*SHAPES, *COLOURS)
    names = (*stricter, *(texture for texture in TEXTURES if texture != "plain"), *ARRANGEMENTS)
    labels_of_image = [labels(scene) for scene in scenes]
    for name in names:
        potential = [number for number, image_labels in enumerate(labels_of_image, 1) if name in image_labels]
        write_lines(folder / f"{name}.txt", potential)
        if name in stricter:
            write_lines(folder / f"{name}_r1.txt", [n for n in potential if labels_of_image[n - 1][name]])
