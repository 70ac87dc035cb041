"""Every page of a method has its figure, with a text alternative; the figures are those that the script draws."""

import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs" / "methods").glob("*.md"))


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    sys.path.insert(0, str(ROOT / "scripts"))
    import draw_methods

    folder = tmp_path_factory.mktemp("figures")
    draw_methods.main(folder)
    return folder


def words(path: Path) -> list[str]:
    """What a figure says: its text, whatever the version of matplotlib that drew it."""
    return re.findall(r"<text[^>]*>([^<]*)</text>", path.read_text())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_page_shows_its_figure(page: Path, drawn: Path) -> None:
    alternatives = re.findall(rf"!\[([^\]]*)\]\(\.\./images/methods/{page.stem}\.svg\)", page.read_text())
    assert len(alternatives) == 1 and len(alternatives[0]) > 30
    kept = ROOT / "docs" / "images" / "methods" / f"{page.stem}.svg"
    assert len(words(kept)) > 2
    assert words(kept) == words(drawn / kept.name), "draw it again: python scripts/draw_methods.py"


def test_no_figure_is_left_over(drawn: Path) -> None:
    kept = {path.name for path in (ROOT / "docs" / "images" / "methods").iterdir()}
    assert kept == {path.name for path in drawn.iterdir()} == {f"{page.stem}.svg" for page in PAGES}


def test_files_that_the_figures_name_exist() -> None:
    for name, folder in (("sedra", "methods/sedra"), ("mcr_dgn", "methods/mcr_dgn")):
        text = " ".join(words(ROOT / "docs" / "images" / "methods" / f"{name}.svg"))
        for file in set(re.findall(r"\w+\.py", text)):
            places = (ROOT / "itmbench" / folder / file, ROOT / "itmbench" / "methods" / file)
            assert any(place.is_file() for place in places), file
