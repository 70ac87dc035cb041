"""The README's picture of the mini corpora: ``python scripts/draw_mini.py OUT.png``."""

import random
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from itmbench.data.mini.albums import sample_upload
from itmbench.data.mini.flickr30k import plan_flickr30k
from itmbench.data.mini.mirflickr import labels
from itmbench.data.mini.nuswide import concepts
from itmbench.data.mini.paint import paint
from itmbench.data.mini.scene import Scene

SIDE, WIDTH, TEXT, GAP = 160, 256, 172, 16
TWINS = ("a test scene", "its twin: colours swapped", "its twin: places swapped", "its twin: one shape changed")


def draw(path: Path, seed: int = 2) -> None:
    """Write the picture: a test scene with its three near twins and captions, then tagged photographs with labels."""
    photos, _ = plan_flickr30k(seed, train=0, val=0, test=1)
    top = [
        (photo.scene, photo.seed, [title, *(f"- {text}" for text in photo.captions[:3])])
        for title, photo in zip(TWINS, photos, strict=True)
    ]
    rng = random.Random(seed)
    bottom = []
    for name, describe in (("mirflickr-mini", labels), ("nuswide-mini", concepts)):
        for upload in (sample_upload(rng, (2, 3), loyalty=0.7) for _ in range(2)):
            said = (
                f"tags: {' '.join(upload.tags) or '(none)'}",
                f"labels: {', '.join(sorted(describe(upload.scene)))}",
            )
            bottom.append((upload.scene, upload.seed, [name, *said]))
    sheet = Image.new("RGB", (len(TWINS) * WIDTH, 2 * (SIDE + TEXT)), "white")
    _row(sheet, 0, top)
    _row(sheet, SIDE + TEXT, bottom)
    sheet.save(path, optimize=True)


def _row(sheet: Image.Image, y: int, cells: Sequence[tuple[Scene, int, list[str]]]) -> None:
    """Scenes side by side, enlarged, each with a title and lines of text below it."""
    pen = ImageDraw.Draw(sheet)
    for column, (scene, seed, lines) in enumerate(cells):
        x = column * WIDTH + GAP
        photograph = Image.fromarray(paint([scene], [seed], 64)[0])
        sheet.paste(photograph.resize((SIDE, SIDE), Image.Resampling.LANCZOS), (x, y + GAP))
        below = y + GAP + SIDE + 6
        pen.text((x, below), lines[0], fill="black", font=ImageFont.load_default(15))
        wrapped = "\n".join(part for line in lines[1:] for part in textwrap.wrap(line, 36, subsequent_indent="  "))
        pen.multiline_text((x, below + 24), wrapped, fill=(60, 60, 60), font=ImageFont.load_default(13), spacing=3)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python scripts/draw_mini.py OUT.png")
    draw(Path(sys.argv[1]))
