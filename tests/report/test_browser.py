"""The page in a real browser: Debian's chromium, driven by playwright. `make test-web` installs the latter."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from report.example_store import HOSTILE, SAMPLED, write_examples

from itmbench.report.page import page as html_page
from itmbench.report.tables import Table, load, tables
from itmbench.store import PER_QUERY

playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright; run `make test-web`")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.web,
    pytest.mark.skipif(CHROMIUM is None, reason="needs chromium; on Debian `apt-get install chromium`"),
]
QUIET = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with results and their page."""
    folder = tmp_path_factory.mktemp("web")
    store = write_examples(folder)
    (folder / "index.html").write_text(html_page(tables(load(store)), folder), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def table(root: Path) -> Table:
    return tables(load(root / "results"))[0]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield opened
        opened.close()


@pytest.fixture
def opened(browser: Any, root: Path) -> Iterator[Any]:
    """A function that opens the page at a width and in a colour scheme; at the end nothing may have gone wrong."""
    wrong: list[str] = []
    contexts = []

    def open_page(width: int = 1280, scheme: str = "light") -> Any:
        contexts.append(browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme))
        tab = contexts[-1].new_page()
        tab.set_default_timeout(10_000)
        tab.on("console", lambda message: wrong.append(message.text))
        tab.on("pageerror", lambda error: wrong.append(str(error)))
        tab.on(
            "request", lambda request: None if request.url.startswith(("file:", "data:")) else wrong.append(request.url)
        )
        tab.goto((root / "index.html").as_uri())
        return tab

    yield open_page
    hacked = [tab.evaluate("typeof hacked") for context in contexts for tab in context.pages]
    for context in contexts:
        context.close()
    assert wrong == [] and set(hacked) <= {"undefined"}


def column(tab: Any, number: int) -> list[str]:
    """Names of the methods in the first table of a section, as shown."""
    rows = tab.locator(f"#table{number} table").first.locator("tbody tr:visible th")
    return [text.strip() for text in rows.all_text_contents()]


def test_a_table_sorts_by_click_and_by_key(opened: Any) -> None:
    tab = opened()
    assert column(tab, 1) == ["dual_infonce", "dual_triplet"]
    heading = tab.locator("#table1 th", has_text="i2t R@1").first
    heading.get_by_role("button").click()
    assert heading.get_attribute("aria-sort") == "descending" and column(tab, 1) == ["dual_infonce", "dual_triplet"]
    heading.get_by_role("button").press("Enter")
    assert heading.get_attribute("aria-sort") == "ascending" and column(tab, 1) == ["dual_triplet", "dual_infonce"]
    tab.locator("#tables a").nth(1).click()
    assert column(tab, 2) == ["dual_infonce", "dual_triplet"]  # another table stays


def test_one_table_at_a_time_is_chosen_by_its_link_or_a_heading_s_address(opened: Any) -> None:
    tab = opened()
    shown = "[...document.querySelectorAll('main > [id^=table]')].map((s) => s.checkVisibility())"
    assert tab.evaluate(shown) == [True, False]
    tab.locator(".glance a").nth(1).click()
    assert tab.evaluate(shown) == [False, True]
    heading = tab.locator("#table2 h3", has_text="Quality and cost")
    tab.locator("#within a:visible", has_text="Quality and cost").click()
    assert heading.bounding_box()["y"] > tab.locator(".tools").bounding_box()["height"]
    tab.get_by_role("link", name="Legend").click()
    assert tab.evaluate(shown) == [False, True] and tab.locator("#tables [aria-current]").count() == 1
    tab.reload()
    tab.goto(tab.url.partition("#")[0] + f"#{heading.get_attribute('id')}")
    assert tab.evaluate(shown) == [False, True]
    tab.emulate_media(media="print")
    assert tab.evaluate(shown) == [True, True]


def test_the_filter_holds_in_tables_and_gallery(opened: Any) -> None:
    tab = opened()
    tab.get_by_label("Show only methods named").fill("triplet")
    assert column(tab, 1) == ["dual_triplet"]
    assert tab.locator("#filtered").text_content() == "1 of 2 methods"
    assert tab.locator("#table1 .detail h4").count() == 1
    tab.get_by_label("Show only methods named").fill("")
    assert len(column(tab, 1)) == tab.locator("#table1 .detail h4").count() == 2


def ranks(root: Path, table: Table, side: str) -> dict[int, list[int]]:
    """Rank of each query by each method, best method first, with the first seed."""
    folder = root / "results" / "mini" / "flickr30k-mini"
    frames = [pd.read_parquet(folder / method / "seed0" / PER_QUERY) for method in table.cells.index]
    columns = [frame[frame["direction"] == side].set_index("query")["rank"] for frame in frames]
    return {int(query): [int(ranks[query]) for ranks in columns] for query in columns[0].index}


def listed(tab: Any) -> list[list[int]]:
    """Ranks by each method of the queries in the list."""
    return [
        [int(text.split()[-1]) for text in item.locator(".outcome").all_text_contents()]
        for item in tab.locator("#table1 .list li").all()
    ]


def test_the_gallery_lists_what_the_methods_disagree_on_first(opened: Any, root: Path, table: Table) -> None:
    tab = opened()
    for side, drawn in SAMPLED.items():
        tab.locator("[name=side]").select_option(side)
        known = ranks(root, table, side)
        tab.locator("[name=order]").select_option("disagreement")
        expected = sorted((known[query] for query in drawn), key=lambda pair: -abs(1 / pair[0] - 1 / pair[1]))
        gaps = [abs(1 / first - 1 / second) for first, second in listed(tab)[: len(drawn)]]
        assert gaps == [abs(1 / first - 1 / second) for first, second in expected]
        tab.locator("[name=order]").select_option("sample")
        assert listed(tab) == [known[query] for query in drawn]
        tab.locator("[name=order]").select_option("worst1")
        assert listed(tab)[0][1] == max(pair[1] for pair in known.values())


def test_the_gallery_shows_right_results_and_twins_with_pictures(opened: Any, root: Path, table: Table) -> None:
    tab = opened()
    tab.locator("[name=order]").select_option("sample")
    first = SAMPLED["i2t"][0]
    for method, rank in zip(
        tab.locator("#table1 .detail article").all(), ranks(root, table, "i2t")[first], strict=True
    ):
        assert f"rank {rank}" in method.locator("h4").inner_text()
        right = [place for place, item in enumerate(method.locator("li").all(), 1) if "✓ own" in item.inner_text()]
        assert right == ([rank] if rank <= 5 else [])
        assert method.locator("li.right").count() == len(right)
        assert method.get_by_text("≈ near twin").count() == (1 if rank > 1 else 0)
    images = tab.locator("#table1 .detail img")
    assert images.evaluate_all("all => all.every((image) => image.naturalWidth > 0 && image.alt)")
    assert tab.locator("#table1 .asked img").get_attribute("alt") == f"0: {HOSTILE}"
    assert HOSTILE in tab.locator("#table1 .asked").inner_text()


def test_the_gallery_is_searched_and_used_by_keys(opened: Any) -> None:
    tab = opened()
    section, status = tab.locator("#table1 .gallery"), tab.locator("#table1 .status")
    section.locator("[name=side]").select_option("t2i")
    section.locator("[name=order]").select_option("sample")
    section.locator("[name=search]").fill("NUMBER 8")
    found = section.locator(".list li").all_inner_texts()
    assert len(found) >= 2 and all("number 8" in text for text in found)
    assert (
        status.text_content() == f"Query 1 of {len(found)}" and "of image 8" in section.locator(".asked").inner_text()
    )
    assert section.locator(".detail ol.images").count() == 2
    section.locator("[name=search]").fill("unheard")
    assert status.text_content() == "No query matches." and section.locator(".detail > *").count() == 0
    section.locator("[name=search]").fill("")
    section.locator(".list button").first.press("ArrowDown")
    assert status.text_content().startswith("Query 2 of ")
    assert section.locator(".list li:nth-child(2) button:focus").get_attribute("aria-current") == "true"
    section.get_by_label("next query").click()
    section.get_by_label("previous query").press("Enter")
    assert status.text_content().startswith("Query 2 of ")
    chip = section.locator(".chip", has_text="dual_triplet")
    chip.press("Space")
    assert chip.get_attribute("aria-pressed") == "false"
    assert section.locator(".detail h4").count() == 1 and len(listed(tab)[0]) == 1


def lit(panel: Any) -> list[float]:
    """How far each region of a picture is faded."""
    return [float(cell.get_attribute("opacity")) for cell in panel.locator(".lit rect").all()]


def test_a_word_lights_its_regions_under_the_mouse_and_by_keys(opened: Any) -> None:
    tab = opened()
    panels = tab.locator("#table1 .why article")
    first, second = panels.nth(0), panels.nth(1)
    words = first.locator(".word")
    assert lit(first) == pytest.approx([0, *[0.8 * (1 - 0.2 / 0.7)] * 3])  # the word that adds most, at first
    words.nth(1).hover()
    assert [value == 0 for value in lit(first)] == [value == 0 for value in lit(second)] == [False, True, False, False]
    assert (
        first.locator(".told")
        .text_content()
        .startswith("“red” counts 25 % of the text and finds its regions with a similarity of 0.90 (at most 1), which")
    )
    words.nth(1).focus()
    tab.keyboard.press("ArrowRight")
    assert words.nth(2).evaluate("word => word === document.activeElement")
    assert [value == 0 for value in lit(first)] == [False, False, True, False]
    assert "row 2 column 1 (60 %)" in first.locator(".told").text_content()
    assert [value == 0 for value in lit(second)] == [False, True, False, False]  # it has no such word
    assert "square" in words.nth(2).get_attribute("aria-label")
    assert first.locator(".lit img").get_attribute("alt") and HOSTILE in words.nth(0).text_content()
    logits = [text.split() for text in second.locator(".paths li").all_inner_texts()]
    assert logits == [["b", "1.0", "−5.0"], ["a", "−1.0", "±0.0"], ["score", "0.0", "−5.0"]]


def test_a_node_keeps_its_edges_and_regions(opened: Any) -> None:
    tab = opened()
    section = tab.locator("#table1 .why")
    section.locator(".cases button").nth(1).press("Enter")
    assert section.locator("article").count() == 2 and section.locator(".cases [aria-current]").count() == 1
    section.get_by_role("button", name="dual_triplet").click()
    graph, text = section.locator("article").nth(0), section.locator("article").nth(1)
    edges = graph.locator(".edges path")
    widths = [float(edge.get_attribute("stroke-width")) for edge in edges.all()]
    assert widths[:3] == pytest.approx([1 + 5, 1 + 5, 1 + 5 * 0.5])  # two nodes see item 7, the whole sees item 8
    assert [value == 0 for value in lit(graph)] == [False, False, True, False]  # the first label, at first
    assert graph.locator(".seen .off").count() == 1
    nodes = graph.locator(".nodes button")
    nodes.nth(1).focus()
    tab.keyboard.press("ArrowDown")
    assert [value == 0 for value in lit(graph)] == [True, False, False, False]
    assert "Attaches to nothing" in graph.locator(".told").text_content()
    graph.locator(".seen button").nth(0).hover()
    told = graph.locator(".told").text_content()
    assert told == "7, “seen text”: votes for red, </script>; received by the whole image (60 %), red (60 %)."
    assert graph.locator(".nodes .active").count() == 2
    assert text.locator(".parts .active").inner_text() == "scarlet" and HOSTILE in text.inner_text()
    tab.get_by_label("Show only methods named").fill("infonce")
    assert section.locator(".chip:visible").all_inner_texts() == ["dual_infonce"]
    assert section.locator("article.pair").count() == 2


CONTRAST = """() => {
  const probe = document.body.appendChild(document.createElement("span"));
  const light = (colour) => {
    probe.style.color = colour;
    const [r, g, b] = getComputedStyle(probe).color.match(/[0-9.]+/g).map((v) => v / 255)
      .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const paper = light("var(--paper)");
  return ["ink", "faint", "link", "good", "bad"].map((name) => light(`var(--${name})`))
    .map((other) => (Math.max(other, paper) + 0.05) / (Math.min(other, paper) + 0.05));
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1280])
def test_it_fits_a_narrow_screen_and_reads_in_both_schemes(opened: Any, width: int, scheme: str) -> None:
    tab = opened(width, scheme)
    tab.evaluate("document.querySelectorAll('details').forEach((details) => { details.open = true; })")
    for side, method in (("i2t", "dual_infonce"), ("t2i", "dual_triplet")):
        tab.locator("[name=side]").select_option(side)
        tab.locator(".why").get_by_role("button", name=method).click()
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
    paper = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (paper == "rgb(255, 255, 255)") == (scheme == "light")
    assert min(tab.evaluate(CONTRAST)) >= 4.5  # WCAG 2.2, 1.4.3
