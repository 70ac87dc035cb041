"""Contact sheets: what a search found, as one HTML file or one picture."""

import base64
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jinja2
import matplotlib as mpl
from PIL import Image, ImageDraw, ImageFont, ImageOps

from itmbench.data.pictures import read_picture
from itmbench.errors import InputError

Item = str | Path
"""A sentence, or the file of a photograph."""
SIDE = 320
"""Longest side of a photograph in a sheet of HTML, in pixels."""
COLUMNS, CELL, GAP, LINE = 5, 240, 16, 20
"""Of a sheet that is a picture: cells in a row; their side, their distance and the height of a line in pixels."""


class Found(NamedTuple):
    """A query, and the best items with their scores."""

    query: Item
    hits: Sequence[tuple[Item, float]]


def sheet_html(found: Sequence[Found]) -> str:
    """One page that needs nothing else: a section for each query."""
    jinja = environment()
    jinja.tests["picture"] = lambda item: isinstance(item, Path)
    return jinja.get_template("sheet.html").render(found=found)


def sheet_png(found: Sequence[Found]) -> bytes:
    """One picture: a heading for each query, and its photographs or sentences in order."""
    sheet = Image.new("RGB", (COLUMNS * (CELL + GAP) + GAP, sum(map(_height, found)) + GAP), "white")
    draw, top = ImageDraw.Draw(sheet), GAP
    for query, hits in found:
        if isinstance(query, Path):
            sheet.paste(_fitted(query), (GAP, top))
            top += CELL
        _write(draw, (GAP, top), name(query), sheet.width - 2 * GAP, 18)
        top += 2 * LINE
        for number, (item, score) in enumerate(hits):
            if isinstance(item, str):
                _write(draw, (GAP, top), f"{number + 1}   {score:.4f}   {item}", sheet.width - 2 * GAP, 14)
                top += LINE
                continue
            left = GAP + number % COLUMNS * (CELL + GAP)
            sheet.paste(_fitted(item), (left, top))
            _write(draw, (left, top + CELL + 2), f"{number + 1}   {score:.4f}   {name(item.name)}", CELL, 14)
            if number % COLUMNS == COLUMNS - 1 or number == len(hits) - 1:
                top += CELL + LINE + GAP
        top += LINE
    file = io.BytesIO()
    sheet.save(file, "PNG")
    return file.getvalue()


def environment() -> jinja2.Environment:
    """Templates of this package, with the filters that pages of photographs share."""
    jinja = jinja2.Environment(
        loader=jinja2.PackageLoader("itmbench.report", "web"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    jinja.filters |= {"name": name, "data_uri": lambda path: data_uri(thumbnail(path, SIDE))}
    return jinja


def name(item: Item) -> str:
    """A sentence, or a path in letters that can be written, whatever bytes are in it."""
    return os.fsencode(item).decode(errors="replace")


def thumbnail(path: Path, side: int) -> Image.Image:
    """A photograph with a longest side of at most ``side`` pixels; grey if it can no longer be read."""
    try:
        return ImageOps.contain(read_picture(path), (side, side))
    except InputError:
        return Image.new("RGB", (side, side), "lightgrey")


def data_uri(picture: Image.Image) -> str:
    """A picture as JPEG within a page."""
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()


def _height(found: Found) -> int:
    """Pixels of a query in a sheet that is a picture."""
    heading = (CELL if isinstance(found.query, Path) else 0) + 3 * LINE
    if found.hits and isinstance(found.hits[0][0], str):
        return heading + LINE * len(found.hits)
    return heading + (CELL + LINE + GAP) * -(-len(found.hits) // COLUMNS)


def _fitted(path: Path) -> Image.Image:
    return ImageOps.pad(thumbnail(path, CELL), (CELL, CELL), color="white")


def _write(draw: ImageDraw.ImageDraw, place: tuple[int, int], text: str, width: int, size: int) -> None:
    """Write a line, cut where it is too long."""
    font = ImageFont.truetype(Path(mpl.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"), size)
    while draw.textlength(text, font) > width:
        text = text[:-2].rstrip("…") + "…"
    draw.text(place, text, fill="black", font=font)
