"""Sheets of photographs and texts, as one HTML file or one picture: what a search found, or what explains a score."""

import base64
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from math import isqrt
from pathlib import Path

import matplotlib as mpl
import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from itmbench.data.pictures import read_picture
from itmbench.errors import InputError
from itmbench.report.templates import template

SIDE = 320
"""Longest side of a photograph in a sheet of HTML, in pixels."""
COLUMNS, CELL, GAP, LINE = 6, 220, 16, 20
"""Of a sheet that is a picture: cells in a row; their side, their distance and the height of a line in pixels."""
GREY = 225
"""Grey that regions without weight fade to."""


@dataclass(frozen=True)
class Cell:
    """A photograph with a line below it, or a line alone."""

    line: str  # what it is
    number: str  # a score or a weight, as text
    picture: Path | None = None  # the photograph
    regions: Sequence[float] = ()  # weights of a square grid over it `[S * S]`, row by row; low ones fade in PNG


@dataclass(frozen=True)
class Row:
    """Cells under a heading."""

    title: str
    cells: Sequence[Cell]
    note: str = ""  # a second line of the heading
    picture: Path | None = None  # a photograph above the heading


def sheet(title: str, rows: Sequence[Row], file: str) -> str | bytes:
    """Rows as a page or as a picture, by the ending of the file's name."""
    return sheet_png(rows) if file.endswith(".png") else sheet_html(title, rows)


def sheet_html(title: str, rows: Sequence[Row], sentence: str | None = None) -> str:
    """One page that needs nothing else; with a sentence, even an empty one, it has a form to search for another."""
    page = template("sheet.html", uri=lambda cell: _data_uri(thumbnail(cell.picture, SIDE)))
    return page.render(title=title, rows=rows, sentence=sentence)


def sheet_png(rows: Sequence[Row]) -> bytes:
    """One picture: the cells of each row below its heading."""
    sheet = Image.new("RGB", (COLUMNS * (CELL + GAP) + GAP, sum(map(_height, rows)) + GAP), "white")
    draw, top, width = ImageDraw.Draw(sheet), GAP, COLUMNS * (CELL + GAP) - GAP
    for row in rows:
        if row.picture:
            sheet.paste(_fitted(Cell("", "", row.picture)), (GAP, top))
            top += CELL
        for text, size in ((row.title, 18), (row.note, 14)):
            if text:
                _write(draw, (GAP, top), text, width, size)
                top += LINE + size // 3
        pictures = [cell for cell in row.cells if cell.picture]
        for number, cell in enumerate(pictures):
            place = GAP + number % COLUMNS * (CELL + GAP), top + number // COLUMNS * (CELL + LINE + GAP)
            sheet.paste(_fitted(cell), place)
            _write(draw, (place[0], place[1] + CELL + 2), f"{cell.number}   {cell.line}".strip(), CELL, 14)
        top += -(-len(pictures) // COLUMNS) * (CELL + LINE + GAP)
        for cell in (cell for cell in row.cells if not cell.picture):
            _write(draw, (GAP, top), f"{cell.number}   {cell.line}".strip(), width, 14)
            top += LINE
        top += LINE
    file = io.BytesIO()
    sheet.save(file, "PNG")
    return file.getvalue()


def shown(path: str | Path) -> str:
    """A path as text that can be encoded, whatever bytes it contains."""
    return os.fsencode(path).decode(errors="replace")


def thumbnail(path: Path, side: int) -> Image.Image:
    """A photograph with a longest side of at most ``side`` pixels; grey if it can no longer be read."""
    try:
        return ImageOps.contain(read_picture(path), (side, side))
    except InputError:
        return Image.new("RGB", (side, side), "lightgrey")


def _faded(picture: Image.Image, cell: Cell) -> Image.Image:
    """A photograph that fades to grey where the regions of its cell have little weight."""
    regions = np.asarray(cell.regions, dtype=np.float64)
    if not regions.size or not regions.max() > 0:
        return picture
    side = isqrt(regions.size)
    light = np.rint(255 * regions.reshape(side, side) / regions.max()).astype(np.uint8)
    mask = Image.fromarray(light).resize(picture.size, Image.Resampling.NEAREST)
    faded = Image.blend(picture.convert("L"), Image.new("L", picture.size, GREY), 0.7).convert("RGB")
    return Image.composite(picture, faded, mask)


def _data_uri(picture: Image.Image) -> str:
    """A picture as JPEG within a page."""
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()


def _height(row: Row) -> int:
    """Pixels of a row in a sheet that is a picture."""
    pictures = sum(cell.picture is not None for cell in row.cells)
    heading = (CELL if row.picture else 0) + LINE + 6 + (LINE + 4 if row.note else 0)
    return heading + -(-pictures // COLUMNS) * (CELL + LINE + GAP) + (len(row.cells) - pictures + 1) * LINE


def _fitted(cell: Cell) -> Image.Image:
    assert cell.picture is not None
    return ImageOps.pad(_faded(thumbnail(cell.picture, CELL), cell), (CELL, CELL), color="white")


def _write(draw: ImageDraw.ImageDraw, place: tuple[int, int], text: str, width: int, size: int) -> None:
    """Write a line, cut where it is too long."""
    font = ImageFont.truetype(Path(mpl.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"), size)
    if draw.textlength(text, font) > width:
        while text and draw.textlength(text + "…", font) > width:
            text = text[:-1]
        text = text.rstrip() + "…"
    draw.text(place, text, fill="black", font=font)
