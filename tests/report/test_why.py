"""Explanations on the page: of which cell, what each panel says that it is, pictures; damaged files."""

import json
from pathlib import Path
from typing import Any

import pytest
from report.example_store import EXPLAINED, write_examples

from itmbench.errors import InputError
from itmbench.report.cells import read_examples
from itmbench.report.page import page
from itmbench.report.tables import load, tables
from itmbench.report.thumbnails import Thumbnails
from itmbench.report.why import why
from itmbench.store import EXAMPLES, EXPLANATIONS


@pytest.fixture
def cells(tmp_path: Path) -> Path:
    """Folder of the cells of captions."""
    return write_examples(tmp_path) / "mini" / "flickr30k-mini"


def made(cells: Path, number: int = 0) -> tuple[Any, Thumbnails]:
    thumbnails = Thumbnails()
    return why(tables(load(cells.parent.parent))[number], thumbnails), thumbnails


def test_panels_say_what_they_explain(cells: Path) -> None:
    shown, _ = made(cells)
    pairs, items = shown["methods"]
    assert (pairs["name"], items["name"], pairs["seed"]) == ("dual_infonce", "dual_triplet", 0)
    examples = read_examples(cells / "dual_infonce" / "seed0")
    assert examples is not None
    stored = {(query.side, query.id): query for query in examples.queries}
    for query, explained in zip(pairs["queries"], EXPLAINED["dual_infonce"], strict=True):
        example = stored[explained.side, explained.id]
        sides = "image → text" if explained.side == "i2t" else "text → image"
        assert query["title"] == example.text and query["note"] == f"{sides}, own at rank {example.outcome:,.0f}"
        assert query["good"] == (example.outcome == 1)
        assert query["image"] == ("0" if explained.side == "i2t" else None)
        for panel, pair in zip(query["panels"], explained.pairs, strict=True):
            assert panel["pair"]["paths"] == [("b", pair.paths["b"]), ("a", -1.0)]  # in the order of the method
            id_ = pair.text_id if explained.side == "i2t" else pair.image
            places = {answer.id: (place, answer) for place, answer in enumerate(example.results, 1)}
            place, answer = places.get(id_, (0, None))
            what = "text" if explained.side == "i2t" else "image"
            if answer is None:
                assert panel["heading"] == f"Its own {what}, not among the first 5" and panel["right"]
            elif answer.right:
                assert panel["heading"] == f"Its own {what}, rank {place}" and panel["right"]
            else:
                twin = ", a near twin" if answer.twin else ""
                assert panel["heading"] == f"The wrong {what} of highest score, rank {place}{twin}"
                assert not panel["right"]
    graph = items["queries"][0]["panels"]
    assert [panel["heading"] for panel in graph] == ["The query, an image", "Its first result, a text"]
    assert graph[0]["item"]["sees"][0]["labels"] == ["red", "</script>"]


@pytest.mark.parametrize(
    ("measure", "heading"),
    [("rank", "Its own text, not among the first 4"), ("ap", "Its own text; none of the first 4 is relevant")],
)
def test_its_own_is_said_to_be_ranked_only_where_it_is_in_the_gallery(cells: Path, measure: str, heading: str) -> None:
    path = cells / "dual_infonce" / "seed0" / EXAMPLES
    content = json.loads(path.read_text()) | {"measure": measure}
    for query in content["queries"]:
        query["results"] = [result for result in query["results"] if not result["right"]][:4]
    path.write_text(json.dumps(content))
    shown, _ = made(cells)
    assert shown["methods"][0]["queries"][0]["panels"][0]["heading"] == heading


def test_pictures_with_regions_are_larger(cells: Path) -> None:
    shown, thumbnails = made(cells)
    assert set(shown["large"]) == {"0", "1", "3"} and set(shown["pictures"]) == {str(number) for number in range(12)}
    assert len(thumbnails.uris) == 12 + 3


def test_the_first_seed_that_is_explained_is_shown(cells: Path) -> None:
    (cells / "dual_infonce" / "seed0" / EXPLANATIONS).unlink()
    (cells / "dual_infonce" / "seed1" / EXAMPLES).unlink()
    shown, _ = made(cells)
    assert [method["seed"] for method in shown["methods"]] == [2, 0]
    for path in cells.glob(f"*/*/{EXPLANATIONS}"):
        path.unlink()
    assert made(cells)[0] is None and made(cells, 1)[0] is None
    text = page(tables(load(cells.parent.parent)), cells)
    assert "startGallery" in text and 'class="why"' not in text


def test_a_damaged_file_stops_the_page_in_one_line(cells: Path) -> None:
    path = cells / "dual_triplet" / "seed0" / EXPLANATIONS
    content = json.loads(path.read_text())
    content["queries"][0]["items"][0]["sees"][0]["weight"] = "much"
    for text in ("{", "[]", json.dumps(content)):
        path.write_text(text)
        with pytest.raises(InputError, match="no explanations"):
            made(cells)
