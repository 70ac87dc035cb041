"""Contact sheets hold what was found, in order, and nothing that a browser would fetch or obey."""

import base64
import io
import re
from pathlib import Path

import pytest
from PIL import Image

from itmbench.report.sheet import Found, sheet_html, sheet_png


@pytest.fixture
def found(tmp_path: Path) -> list[Found]:
    """Two queries of sentences, seven photographs each, and one of a photograph; one photograph is gone."""
    paths = [tmp_path / f"{number}<b>&.png" for number in range(7)]
    for number, path in enumerate(paths[1:], 1):
        Image.new("RGB", (400, 200), (30 * number, 0, 0)).save(path)
    hits = [(path, 1 - number / 10) for number, path in enumerate(paths)]
    return [Found("<script>1</script>", hits), Found("two", hits[::-1]), Found(paths[1], [("a & b", 0.5), ("c", 0.25)])]


def test_a_page_holds_pictures_and_escapes_names(found: list[Found]) -> None:
    page = sheet_html(found)
    assert "<script" not in page and "&lt;script&gt;1&lt;/script&gt;" in page and "a &amp; b" in page
    assert not re.findall(r'(?:src|href)="(?!data:image/jpeg;base64,)', page) and "<b>" not in page
    pictures = [Image.open(io.BytesIO(base64.b64decode(data))) for data in re.findall(r"base64,([^\"]+)", page)]
    assert [picture.size for picture in pictures[:2]] == [(320, 320), (320, 160)] and len(pictures) == 15
    assert [round(picture.getpixel((5, 5))[0] / 30) for picture in pictures[1:7]] == [1, 2, 3, 4, 5, 6]  # type: ignore[index]
    assert re.findall(r'"score">([\d.]+)', page)[:3] == ["1.0000", "0.9000", "0.8000"]


def test_a_picture_holds_pictures_in_rows(found: list[Found]) -> None:
    sheet = Image.open(io.BytesIO(sheet_png(found)))
    first = sheet.crop((0, 0, sheet.width, 600)).convert("RGB")
    middles = [first.getpixel((16 + 120 + 256 * column, 56 + 120)) for column in range(5)]
    assert middles == [(211, 211, 211), (30, 0, 0), (60, 0, 0), (90, 0, 0), (120, 0, 0)]
    assert first.getpixel((136, 56 + 120 + 276)) == (150, 0, 0)
