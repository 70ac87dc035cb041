"""What others published: in full, apart from what was measured, and only where it belongs."""

import html
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from results_store import CAPTION, LABEL, write_store

from itmbench.report.formats import latex, markdown, plain
from itmbench.report.page import page
from itmbench.report.published import DATASETS, figures, published
from itmbench.report.tables import tables
from itmbench.store import load_results

More = Callable[..., pd.DataFrame]
RECALLS = [f"{direction}/R@{k}" for direction in ("i2t", "t2i") for k in (1, 5, 10)]


def test_recalls_add_up_to_their_sum() -> None:
    rows = figures()[figures()["rSum"] != ""]
    assert len(rows) == 15
    for _, row in rows.iterrows():
        assert sum(float(row[key]) for key in RECALLS) == pytest.approx(float(row["rSum"]), abs=0.11), row["method"]


def test_the_figures_that_the_methods_are_compared_with_are_there() -> None:
    known = figures().set_index("method")["rSum"]
    assert known["VSE++"] == "409.8" and known["VSE++, BUTD regions, BiGRU"] == "442.3"
    assert known["SCAN"] == "465.0" and known["SGRAF"] == "499.6" and known["HREM"] == "524.1"
    assert known["VSE∞, BUTD regions, BERT"] == "513.5" and known["CHAN, BERT"] == "518.5"
    assert known["CLIP ViT-B/32, zero-shot"] == "504.4" and known["CLIP ViT-L/14, zero-shot"] == "526.0"


def test_every_row_is_marked_and_has_a_source() -> None:
    known = figures()
    assert set(known["pretraining"]) == {"unimodal", "image-text"}
    assert set(known["ensemble"]) == {"yes", "no"}
    assert (known["source"] != "").all() and (known["setting"] != "").all()
    assert not known.duplicated(["dataset", "setting", "method"]).any()
    ensembles = known[known["ensemble"] == "yes"]["method"]
    assert set(ensembles) == {"SCAN", "SGRAF", "DSRAN, BERT", "NAAF", "HREM", "ESA, BERT"}
    assert (known[known["method"].str.contains("CLIP")]["pretraining"] == "image-text").all()


def test_average_precisions_of_two_sources_never_share_a_table() -> None:
    for data in ("mirflickr25k", "nuswide-tc21"):
        found = published([data], "label-retrieval")
        assert [len(table.cells) for table in found] == [4, 4]
        assert [set(table.cells["source"]) for table in found] == [{"MITH, Table 1"}, {"ALGCN's table"}]
        assert all(table.title.startswith(f"{DATASETS[data]} as published, not measured here: ") for table in found)
    mirflickr, nuswide = (published([data], "label-retrieval")[0].cells for data in ("mirflickr25k", "nuswide-tc21"))
    assert mirflickr.at["MITH", "i2t mAP"] == "87.18" and nuswide.at["MITH", "i2t mAP"] == "72.97"


def test_they_are_shown_for_the_genuine_data_only() -> None:
    (flickr,) = published(["flickr30k", "flickr30k-regions"], "caption-retrieval")
    assert list(flickr.cells) == ["pre-training", "ensemble", "i2t R@1/5/10", "t2i R@1/5/10", "rSum", "source"]
    assert list(flickr.cells.loc["SCAN"]) == [
        "unimodal", "yes", "67.4/90.3/95.8", "48.6/77.7/85.2", "465.0", "AAHR; ESA",
    ]  # fmt: skip
    assert not published(["flickr30k"], "label-retrieval")
    for other in (
        "flickr30k-mini",
        "flickr8k",
        "mirflickr-mini",
        "mirflickr25k-38",
        "nuswide-mini-tc21",
        "nuswide-all",
    ):
        assert not published([other], "caption-retrieval") + published([other], "label-retrieval"), other


def genuine(frame: pd.DataFrame, more: More) -> pd.DataFrame:
    data = {"name": "flickr30k", "fingerprint": "beef", "counts": []}
    protocol = {**CAPTION, "name": "caption-retrieval"}
    names = {"dataset": "f30k", "protocol": protocol}
    more(method="ours", data=data, **names)
    more(method="big", data=data, pretraining="image-text", **names)
    tagged = {"name": "mirflickr25k", "fingerprint": "feed", "counts": []}
    new = more(
        method="tags", dataset="tags", data=tagged, protocol={**LABEL, "name": "label-retrieval", "objective": "rSum"}
    )
    return pd.concat([frame, new], ignore_index=True)


def test_they_stand_once_below_the_last_table_of_a_dataset(frame: pd.DataFrame, more: More) -> None:
    found = {
        (table.title.partition(":")[0], *table.cells.index): table.published for table in tables(genuine(frame, more))
    }
    shown = {names: [figures.title for figures in published] for names, published in found.items() if published}
    flickr, tags = shown.values()
    assert flickr == ["flickr30k as published, not measured here: 1K test of Karpathy's split"]
    assert len(tags) == 2
    assert len([names for names in found if names[0] == "f30k"]) == 2


def test_every_format_shows_them_apart(frame: pd.DataFrame, more: More) -> None:
    made = tables(genuine(frame, more))
    texts = {"table": plain(made), "markdown": markdown(made), "page": page(made, Path())}
    texts = {name: html.unescape(text) for name, text in texts.items()}
    for name, text in texts.items():
        assert text.count("flickr30k as published, not measured here") == 1, name
        for table in made:
            for other in table.published:
                title = text.index(other.title)
                assert text.index(table.title) < title
                for method in other.cells.index:
                    assert title < text.index(method, title), name
                    assert not [cell for cell in other.cells.loc[method] if cell not in text[title:]], name
    assert max(map(len, texts["table"].splitlines())) <= 120
    typeset = latex(made)
    assert r"VSE$\infty$, BUTD regions, BERT & unimodal & no & 81.7/95.4/97.6 &" in typeset
    assert typeset.count(r"\begin{tabular}") == len(made) + 3 and typeset.isascii()


def test_a_store_of_mini_corpora_shows_none(tmp_path: Path) -> None:
    frame = load_results(write_store(tmp_path))
    assert "as published, not measured" not in markdown(tables(frame)) + page(tables(frame), tmp_path)
