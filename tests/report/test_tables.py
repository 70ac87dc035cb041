import html
import json
import re
import statistics
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from results_store import CAPTION

from itmbench.evaluation.paired import PairedResults, parts
from itmbench.report.page import page
from itmbench.report.queries import read_queries
from itmbench.report.tables import GROUP, print_tables, tables
from itmbench.report.text import latex, markdown

More = Callable[..., pd.DataFrame]


def with_more(frame: pd.DataFrame, more: More, **changes: object) -> pd.DataFrame:
    return pd.concat([frame, more(**changes)], ignore_index=True)


def test_one_table_a_dataset_where_nothing_sets_rows_apart(frame: pd.DataFrame) -> None:
    flickr, mirflickr = tables(frame)
    assert (flickr.objective, mirflickr.objective) == ("rSum", "mAP")
    assert flickr.title == "flickr30k-mini: caption, version 1; trained from scratch; a random order has rSum 12.3"
    assert not flickr.reason
    recalls = [f"{direction} R@{k}" for direction in ("i2t", "t2i") for k in (1, 5, 10)]
    assert list(flickr.quality_columns) == ["seeds", *recalls, "rSum", "hard neg.", "true rSum"]
    assert list(mirflickr.quality_columns) == ["seeds", "i2t mAP", "t2i mAP", "mAP", "i2t mAP@50", "t2i mAP@50"]
    assert mirflickr.detail_columns == ["i2t P@50", "t2i P@50"]
    assert "i2t R@1" not in mirflickr.cells


def test_cells_are_mean_and_sample_deviation_over_the_seeds(frame: pd.DataFrame) -> None:
    for table, key, scale, digits in zip(tables(frame), ("t2i/R@5", "mAP"), (100, 1), (1, 3), strict=True):
        heading = key.replace("/", " ")
        for method in ("dual_infonce", "dual_triplet"):
            rows = frame[(frame["dataset"] == table.title.partition(":")[0]) & (frame["method"] == method)]
            values = [scale * value for value in rows[key]]
            expected = f"{statistics.mean(values):.{digits}f} ± {statistics.stdev(values):.{digits}f}"
            assert table.cells.at[method, heading] == expected
            assert table.cells.at[method, "seeds"] == "2"


def test_one_seed_has_no_deviation_and_costs_have_none(frame: pd.DataFrame) -> None:
    one = tables(frame[frame["seed"] == 0])[0].cells
    assert not one.map(lambda text: "±" in text).to_numpy().any()
    two = tables(frame)[0]
    assert not two.cells[two.cost_columns].map(lambda text: "±" in text).to_numpy().any()
    assert list(two.cells["time"]) == ["66 s", "86 s"]
    assert list(two.cells["weights"]) == ["1.23 M", "1.23 M"]


def test_the_best_by_the_objective_comes_first(frame: pd.DataFrame) -> None:
    means = frame.groupby(["dataset", "method"])["rSum"].mean()["flickr30k-mini"].sort_values(ascending=False)
    assert list(tables(frame)[0].cells.index) == list(means.index) == ["dual_infonce", "dual_triplet"]
    turned = frame.assign(rSum=600 - frame["rSum"])
    assert list(tables(turned)[0].cells.index) == ["dual_triplet", "dual_infonce"]


def test_marked_is_what_is_not_significantly_worse_than_the_best(frame: pd.DataFrame) -> None:
    flickr, mirflickr = tables(frame)
    for table in (flickr, mirflickr):
        for heading in table.quality_columns[1:]:
            key = heading.replace(" ", "/", 1) if heading[1] == "2" else heading
            key = {"hard neg.": "hard_negative_accuracy", "true rSum": "truth/rSum"}.get(heading, key)
            marked = list(table.cells.index[table.best[heading]])
            if not parts(key):  # an average over queries that are not kept
                assert marked == []
                continue
            folders = {str(name): [*map(read_queries, of["folder"])] for name, of in table.rows.groupby("label")}
            one, other = table.rows.groupby("label")[key].mean().sort_values(ascending=False).index
            of = PairedResults(folders, [key]).difference(one, other, key)
            assert marked == ([one] if of.p < 0.05 and of.low > 0 else list(table.cells.index))
        assert not table.best[["seeds", *table.cost_columns]].to_numpy().any()
    assert list(flickr.best["rSum"]) == [True, False]
    assert list(flickr.best["hard neg."]) == [True, True]


def test_without_marks_no_results_of_queries_are_read(frame: pd.DataFrame, more: More) -> None:
    both = with_more(frame, more, method="other")  # has none
    for table, marked in zip(tables(both, mark=False), tables(both), strict=True):
        assert not table.best.to_numpy().any() and not table.warning
        assert table.cells.equals(marked.cells)


def test_a_method_alone_is_not_marked(frame: pd.DataFrame) -> None:
    assert not tables(frame[frame["method"] == "dual_infonce"])[0].best.to_numpy().any()


def test_a_method_that_failed_the_audit_is_neither_marked_nor_a_yardstick(frame: pd.DataFrame) -> None:
    assert list(tables(frame)[0].best["rSum"]) == [True, False]
    leaky = frame.assign(audit_failed=["pairs" if method == "dual_infonce" else "" for method in frame["method"]])
    assert not tables(leaky)[0].best.to_numpy().any()  # one honest method is left


def test_seeds_of_different_recipes_are_shown_and_not_ranked(frame: pd.DataFrame) -> None:
    best = frame["method"] == "dual_infonce"
    mixed = frame.assign(recipe=[f"r{seed > 0}" if of else "r" for of, seed in zip(best, frame["seed"], strict=True)])
    flickr = tables(mixed)[0]
    assert "dual_infonce" in flickr.cells.index and "dual_infonce" not in flickr.ranked and flickr.ranked
    assert not flickr.best.loc["dual_infonce"].any()
    assert "not all seeds were run with the same options, data and code: dual_infonce;" in flickr.warning
    assert not tables(frame.assign(recipe="r"))[0].warning


def test_without_queries_nothing_is_marked_and_the_table_says_why(
    frame: pd.DataFrame, more: More, capsys: pytest.CaptureFixture[str]
) -> None:
    both = with_more(frame, more, method="other")
    table, untouched = tables(both)
    assert not table.best.to_numpy().any() and untouched.best.to_numpy().any()
    assert re.fullmatch(r"No marks: .*other/seed\d/per_query.parquet: no such file; .*", table.warning)
    print_tables(both)
    assert table.warning in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"pretraining": "unimodal"}, "here pretraining = unimodal."),
        ({"data": {"name": "flickr30k-mini", "fingerprint": "beef", "counts": []}}, "here fingerprint = beef."),
        (
            {"protocol": {**CAPTION, "version": 2, "ties": "optimistic", "gallery": "seen"}},
            "here protocol gallery = seen, protocol ties = optimistic, protocol version = 2.",
        ),
    ],
)
def test_rows_that_may_not_be_ranked_together_are_apart_and_say_why(
    frame: pd.DataFrame, more: More, changes: dict[str, object], reason: str
) -> None:
    found = tables(with_more(frame, more, method="other", **changes))
    assert [len(table.cells) for table in found] == [2, 1, 2]
    assert found[1].reason == f"Not ranked with the other tables of flickr30k-mini: {reason}"
    assert found[0].reason.startswith("Not ranked")
    assert not found[2].reason  # the other dataset has one table only


def test_every_field_of_a_group_separates(frame: pd.DataFrame) -> None:
    for field in GROUP:
        other = frame.copy()
        first = (other["dataset"] == "flickr30k-mini") & (other["method"] == "dual_infonce")
        changed: dict[str, str | bool] = {
            "inductive": False,
            "pretraining": "image-text",
            "protocol": json.dumps({**json.loads(frame["protocol"][0]), "version": 9}),
        }
        other.loc[first, field] = changed.get(field, "other")
        assert len(tables(other)) > 2, field


def test_transductive_rows_are_a_diagnostic_without_ranks(frame: pd.DataFrame) -> None:
    table = tables(frame.assign(inductive=False))[0]
    assert table.reason == "Test items were encoded together (transductive): a diagnostic, not ranked."
    assert not table.best.to_numpy().any()


def test_methods_of_one_name_in_two_benchmarks_are_two_rows(frame: pd.DataFrame, more: More) -> None:
    table = tables(with_more(frame, more, benchmark="ablations"))[0]
    assert len(table.cells) == 3
    assert table.cells.loc["dual_infonce", "seeds"] == "2"
    seeds = table.cells["seeds"]
    (other,) = (name for name in seeds.index if name.endswith("ablations/flickr30k-mini/dual_triplet"))
    (mini,) = set(seeds.index) - {other, "dual_infonce"}
    assert mini.endswith("mini/flickr30k-mini/dual_triplet")
    assert (seeds[mini], seeds[other]) == ("2", "1")


def test_a_metric_that_a_method_lacks_is_a_dash(frame: pd.DataFrame) -> None:
    lacking = frame.copy()
    lacking.loc[frame["method"] == "dual_infonce", "hard_negative_accuracy"] = None
    table = tables(lacking)[0]
    assert table.cells.at["dual_infonce", "hard neg."] == "–"


def test_no_results_no_tables() -> None:
    assert tables(pd.DataFrame()) == []


def test_printed_tables_hold_every_number_in_120_columns(
    frame: pd.DataFrame, more: More, capsys: pytest.CaptureFixture[str]
) -> None:
    long = "a [bold] method with a name that is by far too long for any table " * 2
    print_tables(frame)
    text = capsys.readouterr().out
    assert "\x1b" not in text
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= 120
    for table in tables(frame):
        for heading in table.main_columns:
            assert heading in text
            for method in table.cells.index:
                mark = "*" if table.best.at[method, heading] else ""
                assert str(table.cells.at[method, heading]) + mark in text
    print_tables(with_more(frame, more, method=long))
    assert long in capsys.readouterr().out


def test_a_notebook_shows_the_best_in_bold(frame: pd.DataFrame) -> None:
    (page,) = [table._repr_html_() for table in tables(frame)][:1]
    assert "font-weight: bold" in page
    assert str(tables(frame)[0].cells.at["dual_infonce", "rSum"]) in page


def test_labels_do_not_depend_on_where_the_results_lie(frame: pd.DataFrame) -> None:
    moved = frame.assign(folder=[str(Path("elsewhere") / Path(folder).relative_to("/")) for folder in frame["folder"]])
    assert tables(moved)[0].cells.equals(tables(frame)[0].cells)


def test_the_title_says_what_a_random_order_scores(frame: pd.DataFrame) -> None:
    titles = [table.title for table in tables(frame)]
    assert "a random order has rSum 12.3" in titles[0]
    assert "a random order has mAP 0.456" in titles[1]
    old = frame[[column for column in frame.columns if not str(column).startswith("chance/")]]
    assert not any("random" in table.title for table in tables(old))


def test_a_failed_audit_is_marked_in_every_format(
    frame: pd.DataFrame, more: More, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not any(table.warning for table in tables(frame))
    bad, good = {"passed": False, "found": 0.1, "bound": 1e-5}, {"passed": True, "found": 0.0, "bound": 0}
    both = with_more(frame, more, method="leaky", audit={"alone": bad, "pairs": good, "frozen": bad})
    table, other = tables(both)
    assert sorted(table.cells.index) == ["dual_infonce", "dual_triplet", "leaky †"]
    assert set(table.rows["label"]) == set(table.cells.index)
    assert table.warning.startswith("† failed the leak audit") and "leaky (an item's embedding" in table.warning
    assert "testing changes the model" in table.warning and "score" not in table.warning
    assert not other.warning
    print_tables(both)
    shown = {"table": capsys.readouterr().out, "markdown": markdown([table]), "notebook": table._repr_html_()}
    for name, text in (shown | {"page": page(both, Path())}).items():
        text = html.unescape(text)
        assert "leaky †" in text and table.warning in text, name
    assert r"leaky $\dagger$ &" in latex([table]) and r"$\dagger$ failed the leak audit" in latex([table])


def test_one_seed_that_fails_the_audit_marks_the_method(frame: pd.DataFrame) -> None:
    one = frame.assign(audit_failed=["pairs", *[""] * (len(frame) - 1)])
    table = tables(one)[0]
    assert list(table.cells.index) == ["dual_infonce †", "dual_triplet"]
    assert table.cells.at["dual_infonce †", "seeds"] == "2"
