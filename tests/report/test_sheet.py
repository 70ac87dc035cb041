"""Sheets hold photographs and lines in order, and nothing that a browser would fetch or obey."""

import base64
import io
import re
from pathlib import Path

import pytest
from PIL import Image

from itmbench.report.sheet import Cell, Row, sheet, sheet_html, sheet_png, shown


@pytest.fixture
def rows(tmp_path: Path) -> list[Row]:
    """Seven photographs, of which the first is gone; one faded; two lines below a photograph."""
    paths = [tmp_path / f"{number}<b>&.png" for number in range(7)]
    for number, path in enumerate(paths[1:], 1):
        Image.new("RGB", (400, 200), (30 * number, 0, 0)).save(path)
    cells = [Cell(path.name, f"{1 - number / 10:.4f}", path) for number, path in enumerate(paths)]
    return [
        Row("<script>1</script>", cells),
        Row("two", [Cell("faded", "0.5", paths[1], [0.0, 0.1, 0.2, 0.4])], "a note"),
        Row("three", [Cell("a & b", "0.5"), Cell("c", "0.25")], picture=paths[6]),
    ]


def pictures(page: str) -> list[Image.Image]:
    return [Image.open(io.BytesIO(base64.b64decode(data))) for data in re.findall(r"base64,([^\"]+)", page)]


def red(picture: Image.Image, x: int, y: int) -> tuple[int, int]:
    """Red and green of a pixel, in steps of ten."""
    r, g, _ = picture.convert("RGB").getpixel((x, y))  # type: ignore[misc]
    return round(r / 10), round(g / 10)


def test_a_page_holds_pictures_and_escapes_names(rows: list[Row]) -> None:
    page = sheet_html("a <title>", rows)
    assert "<script" not in page and "&lt;script&gt;1&lt;/script&gt;" in page and "a &amp; b" in page
    assert not re.findall(r'(?:src|href)="(?!data:image/jpeg;base64,)', page) and "<b>" not in page
    found = pictures(page)
    assert [picture.size for picture in found[:2]] == [(320, 320), (320, 160)] and len(found) == 9
    assert [red(picture, 5, 5)[0] for picture in found[1:7]] == [3, 6, 9, 12, 15, 18]
    assert re.findall(r"<span>([\d.]+)", page) == [f"{1 - n / 10:.4f}" for n in range(7)] + ["0.5", "0.5", "0.25"]
    assert page.index("two</h2>") < page.index("a note") < page.index("faded")


def test_regions_without_weight_are_grey(rows: list[Row]) -> None:
    faded = Image.open(io.BytesIO(sheet_png([Row("", rows[1].cells)]))).crop((16, 16, 236, 236))  # 220 x 110 within
    corners = [red(faded, x, y) for y in (65, 155) for x in (30, 190)]
    assert corners[0] == (16, 16) and corners[3] == (3, 0)
    assert corners[0] > corners[1] > corners[2] > corners[3]


def test_a_picture_holds_the_same(rows: list[Row]) -> None:
    drawn = Image.open(io.BytesIO(sheet_png(rows)))
    middles = [red(drawn, 16 + 110 + 236 * column, 42 + 110) for column in range(6)]
    assert middles == [(21, 21), (3, 0), (6, 0), (9, 0), (12, 0), (15, 0)]
    assert red(drawn, 126, 42 + 110 + 256) == (18, 0)
    assert sheet("", rows, "a.png") == sheet_png(rows) and sheet("", rows, "a.html") == sheet_html("", rows)


def test_names_of_any_bytes_are_shown() -> None:
    assert shown(Path("a\udcff.png")) == "a\ufffd.png"
