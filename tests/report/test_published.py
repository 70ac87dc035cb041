"""What others published: in full, apart from what was measured, and only where it belongs."""

import html
from collections.abc import Callable
from pathlib import Path

import pandas as pd
from results_store import CAPTION, LABEL

from itmbench.report.formats import latex, markdown, plain
from itmbench.report.page import page
from itmbench.report.published import DATASETS, figures, published
from itmbench.report.tables import tables

More = Callable[..., pd.DataFrame]


def test_the_file_is_complete_and_consistent() -> None:
    known = figures()
    assert set(known["pretraining"]) == {"unimodal", "image-text"} and set(known["ensemble"]) == {"yes", "no"}
    assert (known["source"] != "").all() and (known["setting"] != "").all()
    assert not known.duplicated(["dataset", "setting", "method"]).any()
    ensembles = known[known["ensemble"] == "yes"]["method"]
    assert set(ensembles) == {"SCAN", "SGRAF", "DSRAN, BERT", "NAAF", "HREM", "ESA, BERT"}
    assert (known[known["method"].str.contains("CLIP")]["pretraining"] == "image-text").all()
    rows = known[known["rSum"] != ""].set_index("method")
    sums = rows[[f"{direction}/R@{k}" for direction in ("i2t", "t2i") for k in (1, 5, 10)]].astype(float).sum(axis=1)
    assert len(rows) == 17 and (sums - rows["rSum"].astype(float)).abs().max() < 0.11
    expected = {
        "VSE++": "409.8", "SCAN": "465.0", "SGRAF": "499.6", "HREM": "524.1", "CHAN, BERT": "518.5",
        "VSE∞, BUTD regions, BERT": "513.5", "CLIP ViT-B/32, zero-shot": "504.4", "CLIP ViT-L/14, zero-shot": "526.0",
    }  # fmt: skip
    assert rows["rSum"][list(expected)].to_dict() == expected


def test_average_precisions_of_two_sources_never_share_a_table() -> None:
    for data in ("mirflickr25k", "nuswide-tc21"):
        (codes,), (floats,) = (published([data], f"{kind}-retrieval") for kind in ("hash", "label"))
        assert set(codes.cells["source"]) == {"MITH, Table 1"} and set(floats.cells["source"]) == {"ALGCN's table"}
        for table in (codes, floats):
            assert len(table.cells) == 4
            assert table.title.startswith(f"{DATASETS[data]} as published, not measured here: ")
    mirflickr, nuswide = (published([data], "hash-retrieval")[0].cells for data in ("mirflickr25k", "nuswide-tc21"))
    assert mirflickr.at["MITH", "i2t mAP"] == "87.18" and nuswide.at["MITH", "i2t mAP"] == "72.97"


def test_they_are_shown_for_the_genuine_data_only() -> None:
    (flickr,) = published(["flickr30k", "flickr30k-regions"], "caption-retrieval")
    assert list(flickr.cells) == ["pre-training", "ensemble", "i2t R@1/5/10", "t2i R@1/5/10", "rSum", "source"]
    assert list(flickr.cells.loc["SCAN"]) == [
        "unimodal", "yes", "67.4/90.3/95.8", "48.6/77.7/85.2", "465.0", "AAHR; ESA",
    ]  # fmt: skip
    assert flickr.cells.at["LAPS, Swin-B, BERT", "i2t R@1/5/10"] == "84.5/97.7/–"  # its repository gives no R@10
    assert not published(["flickr30k"], "label-retrieval")
    for other in (
        "flickr30k-mini",
        "flickr8k-mini",
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
    codes = {**LABEL, "name": "hash-retrieval", "objective": "rSum", "bits": 64}
    return pd.concat([frame, new, more(method="codes", dataset="tags", data=tagged, protocol=codes)], ignore_index=True)


def test_every_format_shows_them_apart(frame: pd.DataFrame, more: More) -> None:
    made = tables(genuine(frame, more))
    assert [(table.dataset, len(table.published)) for table in made] == [
        ("flickr30k-mini", 0), ("mirflickr-mini", 0), ("f30k", 0), ("f30k", 1), ("tags", 1), ("tags", 1)
    ]  # fmt: skip
    texts = {"table": plain(made), "markdown": markdown(made), "page": page(made, Path())}
    texts = {name: html.unescape(text) for name, text in texts.items()}
    for name, text in texts.items():
        assert text.count("flickr30k as published, not measured here") == 1, name
        for table in made:
            for other in table.published:
                title = text.index(other.title)
                assert (
                    text.index(table.title.removeprefix(f"{table.dataset}: ")) < title
                )  # the page has the dataset apart
                for method in other.cells.index:
                    assert title < text.index(method, title), name
                    assert not [cell for cell in other.cells.loc[method] if cell not in text[title:]], name
    assert max(map(len, texts["table"].splitlines())) <= 120
    typeset = latex(made)
    assert r"VSE$\infty$, BUTD regions, BERT & unimodal & no & 81.7/95.4/97.6 &" in typeset
    assert typeset.count(r"\begin{tabular}") == 2 * len(made) + 3 and typeset.isascii()
