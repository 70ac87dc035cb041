"""The documentation site builds without a warning and holds every page; links that leave docs/ end at copies."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "WARNING" not in done.stderr, done.stderr
    return folder


def test_every_page_is_in_the_site_and_in_its_navigation(site: Path) -> None:
    start = (site / "index.html").read_text()
    for page in (ROOT / "docs").rglob("*.md"):
        name = page.relative_to(ROOT / "docs").with_suffix("")
        assert name.name == "index" or f'href="{name}/"' in start, name


def test_local_links_of_all_pages_exist(site: Path) -> None:
    count = 0
    for page in site.rglob("*.html"):
        for link in re.findall(r'(?:href|src)="([^"#?]+)"', page.read_text()):
            if not re.match("https?:|data:|mailto:|/", link) and page.name != "404.html":
                count += 1
                assert (page.parent / link).resolve().exists(), (page, link)
    assert count > 500


def test_lists_and_tables_are_no_running_text(site: Path) -> None:
    for page in (ROOT / "docs").rglob("*.md"):
        name = page.relative_to(ROOT / "docs").with_suffix("")
        html = (site / ("index.html" if name.name == "index" else f"{name}/index.html")).read_text()
        for paragraph in re.findall(r"<p>(.*?)</p>", html, re.DOTALL):
            assert not re.search(r"^(- |\d+\. |\| )", paragraph, re.MULTILINE), (name, paragraph[:200])


def test_sources_and_configs_have_copies(site: Path) -> None:
    shown = site / "files" / "itmbench" / "methods" / "scan.py.txt"
    assert shown.read_bytes() == (ROOT / "itmbench" / "methods" / "scan.py").read_bytes()
    assert "../../files/itmbench/methods/scan.py.txt" in (site / "methods" / "scan" / "index.html").read_text()


def test_the_reference_shows_docstrings(site: Path) -> None:
    reference = (site / "reference" / "index.html").read_text()
    assert "Evaluate retrieval between images and texts in both directions." in reference
    assert reference.count('class="doc doc-object') > 30
