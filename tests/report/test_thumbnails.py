import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from itmbench.report.thumbnails import SIDE, Thumbnails


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(3):
        pixels = np.full((300, 400, 3), (80 * number, 40, 200), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    return tmp_path


def number(thumbnails: Thumbnails, path: Path, size: int | None = None) -> int | None:
    return thumbnails.number(str(path.parent), path.name, path.stat().st_size if size is None else size)


def decoded(uri: str) -> Image.Image:
    kind, _, content = uri.partition(",")
    assert kind == "data:image/webp;base64"
    return Image.open(io.BytesIO(base64.b64decode(content)))


def test_a_picture_is_kept_once_and_small(folder: Path) -> None:
    thumbnails = Thumbnails()
    assert [number(thumbnails, folder / name) for name in ("2.png", "0.png", "2.png")] == [0, 1, 0]
    assert len(thumbnails.uris) == 2
    copy = decoded(thumbnails.uris[0])
    assert copy.size == (SIDE, SIDE * 3 // 4)
    np.testing.assert_allclose(np.asarray(copy)[50, 50], (160, 40, 200), atol=6)
    large = thumbnails.number(str(folder), "2.png", (folder / "2.png").stat().st_size, 300)
    assert large == 2 and decoded(thumbnails.uris[2]).size == (300, 225)


def test_what_is_not_the_tested_picture_is_not_shown(folder: Path) -> None:
    (folder / "damaged.png").write_bytes(b"no picture")
    (folder / "pictures").mkdir()
    thumbnails = Thumbnails()
    assert number(thumbnails, folder / "0.png", size=7) is None
    assert number(thumbnails, folder / "none.png", size=7) is None
    assert number(thumbnails, folder / "damaged.png") is None
    size = (folder / "1.png").stat().st_size
    for name in ("../1.png", str(folder / "1.png"), "a\0b"):
        assert thumbnails.number(str(folder / "pictures"), name, size) is None
    assert thumbnails.uris == []


def test_the_budget_bounds_all_copies_together(folder: Path) -> None:
    free = Thumbnails()
    number(free, folder / "0.png")
    thumbnails = Thumbnails(budget=len(free.uris[0]) + 10)
    assert [number(thumbnails, folder / name) for name in ("0.png", "1.png", "0.png")] == [0, None, 0]
