import json
import re
from dataclasses import asdict
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from PIL import Image
from results_store import write_store

from itmbench.errors import InputError
from itmbench.evaluation.answers import Answer, Example, Examples
from itmbench.report.gallery import gallery
from itmbench.report.page import page
from itmbench.report.tables import load, tables
from itmbench.report.thumbnails import Thumbnails
from itmbench.store import EXAMPLES, PER_QUERY

HOSTILE = "</script><script>alert('1')</script> & <b>"
"""A caption."""


def query(folder: Path, id_: str, sampled: bool, results: list[Answer], side: str = "t2i") -> Example:
    """An example whose outcome is that of ``per_query.parquet``."""
    rows = pd.read_parquet(folder / PER_QUERY).set_index(["direction", "query"])
    image = str(rows.loc[(side, id_), "image"])
    outcome = int(rows.loc[(side, id_), "rank"])  # type: ignore[arg-type]
    return Example(side, id_, image, f"text {id_}", ["red"], outcome, sampled, results)  # type: ignore[arg-type]


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Two methods with two seeds; of captions, both have examples."""
    root, pictures = write_store(tmp_path / "results", (0, 1)), tmp_path / "pictures"
    pictures.mkdir()
    for name in ("0.png", "1.png"):
        Image.new("RGB", (40, 30), "red").save(pictures / name)
    files = {name.split(".")[0]: (name, (pictures / name).stat().st_size) for name in ("0.png", "1.png")}
    own = Answer("0", "0", HOSTILE, 0.75, "own", False, [])
    twin = Answer("1", "1", "another", 0.5, "", True, [])
    gone = Answer("9", "9", "gone", 0.25, "", False, [])
    for seed in (0, 1):
        for method, worst in (("dual_infonce", "5"), ("dual_triplet", "7")):
            cell = root / "mini" / "flickr30k-mini" / method / f"seed{seed}"
            queries = [query(cell, "3", True, [own, twin, gone]), query(cell, worst, False, [gone])]
            content = Examples("rank", str(pictures), {**files, "9": ("9.png", 5)}, queries)
            (cell / EXAMPLES).write_text(json.dumps(asdict(content)))
    return root


def made(store: Path, number: int = 0) -> tuple[dict[str, Any] | None, Thumbnails]:
    thumbnails = Thumbnails()
    return gallery(tables(load(store))[number], thumbnails), thumbnails


def test_queries_of_all_methods_are_side_by_side(store: Path) -> None:
    shown, thumbnails = made(store)
    assert shown is not None
    assert shown["measure"] == "rank"
    assert shown["methods"] == [{"name": name, "seed": 0} for name in ("dual_infonce", "dual_triplet")]
    assert [(query["id"], query["sampled"]) for query in shown["queries"]] == [("3", True), ("5", False), ("7", False)]
    both, first, second = ([answer["results"] for answer in query["answers"]] for query in shown["queries"])
    assert both[0] == both[1] and [result["right"] for result in both[0]] == ["own", "", ""]
    assert first[0] is not None and first[1] is None and second[0] is None and second[1] is not None
    for method, name in enumerate(("dual_infonce", "dual_triplet")):  # an outcome is known without results
        path = store / "mini" / "flickr30k-mini" / name / "seed0" / PER_QUERY
        ranks = pd.read_parquet(path).set_index(["direction", "query"])["rank"]
        for query in shown["queries"]:
            assert query["answers"][method]["outcome"] == ranks["t2i", query["id"]]
    assert set(shown["pictures"]) == {"0", "1"} and len(thumbnails.uris) == 2
    assert "1 of 3 pictures cannot be shown here" in shown["note"]


@pytest.mark.parametrize("case", ["has", "lacks"])
def test_examples_of_another_run_are_left_out(case: str, store: Path, caplog: pytest.LogCaptureFixture) -> None:
    cell = store / "mini" / "flickr30k-mini" / "dual_infonce" / "seed0"
    if case == "has":
        (cell / EXAMPLES).write_bytes((cell.with_name("seed1") / EXAMPLES).read_bytes())
        there = r"has \d+"
    else:
        queries = pd.read_parquet(cell / PER_QUERY)
        queries[queries["query"] != "3"].to_parquet(cell / PER_QUERY)
        there = "lacks the query"
    shown, _ = made(store)
    assert shown is not None and [method["seed"] for method in shown["methods"]] == [1, 0]
    [warning] = caplog.messages
    assert re.search(rf"seed0/examples\.json: rank \d+ of \d, but per_query\.parquet {there}; not shown, so", warning)


def test_what_is_not_stored_is_said(store: Path) -> None:
    assert made(store, 1)[0] is None
    cell = store / "mini" / "flickr30k-mini" / "dual_triplet"
    (cell / "seed0" / EXAMPLES).unlink()
    shown, _ = made(store)
    assert shown is not None and [method["seed"] for method in shown["methods"]] == [0, 1]
    (cell / "seed1" / EXAMPLES).unlink()
    (store / "mini" / "flickr30k-mini" / "dual_infonce" / "seed0" / PER_QUERY).unlink()
    shown, _ = made(store)
    assert shown is not None and [method["name"] for method in shown["methods"]] == ["dual_infonce"]
    assert "There are no examples of dual_triplet" in shown["note"]
    assert [query["id"] for query in shown["queries"]] == ["3", "5"]


def test_a_damaged_file_stops_the_page_in_one_line(store: Path) -> None:
    (store / "mini" / "flickr30k-mini" / "dual_triplet" / "seed0" / EXAMPLES).write_text("{")
    with pytest.raises(InputError, match="no example queries"):
        made(store)


class Scripts(HTMLParser):
    """The content of every script of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.within = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.within = tag == "script"
        self.found += [""] * self.within

    def handle_data(self, data: str) -> None:
        if self.within:
            self.found[-1] += data

    def handle_endtag(self, tag: str) -> None:
        self.within = False


def test_the_page_holds_it_and_a_hostile_caption_stays_text(store: Path) -> None:
    shown, thumbnails = made(store)
    text = page(tables(load(store)), store)
    content, _, pictures, script = Scripts(text).found
    assert json.loads(content) == shown and json.loads(pictures) == thumbnails.uris
    assert "startGallery" in script and HOSTILE in content.encode().decode("unicode_escape")
    assert re.findall(r'<option value="worst(\d)">worst of (\w+) first', text) == [
        ("0", "dual_infonce"),
        ("1", "dual_triplet"),
    ]
    assert len(re.findall('class="chip"', text)) == 2


def test_without_examples_there_is_no_gallery(frame: pd.DataFrame, tmp_path: Path) -> None:
    text = page(tables(frame), tmp_path)
    assert len(Scripts(text).found) == 1 and "startGallery" not in text and "Retrieved examples" not in text
