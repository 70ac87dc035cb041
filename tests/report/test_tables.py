import json
import re
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from results_store import CAPTION

from itmbench.errors import InputError
from itmbench.evaluation.paired import PairedResults, parts
from itmbench.report.cells import read_queries
from itmbench.report.columns import find
from itmbench.report.tables import CHOICES, GROUP, legend, load, tables
from itmbench.store import PER_QUERY

More = Callable[..., pd.DataFrame]


def with_more(frame: pd.DataFrame, more: More, **changes: object) -> pd.DataFrame:
    return pd.concat([frame, more(**changes)], ignore_index=True)


def test_one_table_a_dataset_where_nothing_sets_rows_apart(frame: pd.DataFrame) -> None:
    flickr, mirflickr = tables(frame)
    assert (flickr.objective, mirflickr.objective) == ("rSum", "mAP")
    assert flickr.title == "flickr30k-mini: caption, version 1; trained from scratch; random chance: rSum 12.3"
    assert mirflickr.title.endswith("; random chance: mAP 45.6") and not flickr.reason
    recalls = [f"{direction} R@{k}" for direction in ("i2t", "t2i") for k in (1, 5, 10)]
    assert flickr.quality_columns == ["seeds", *recalls, "rSum", "near-twin acc.", "rSum (complete truth)"]
    assert mirflickr.quality_columns == [
        "seeds", "i2t mAP", "t2i mAP", "mAP", "mAP (unseen)", "i2t P@50", "t2i P@50",
    ]  # fmt: skip
    assert mirflickr.detail_columns == ["i2t mAP@50", "t2i mAP@50"]
    assert "i2t R@1" not in mirflickr.cells
    old = frame[[column for column in frame.columns if not str(column).startswith("chance/")]]
    assert not any("chance" in table.title for table in tables(old))


def test_cells_are_percentages_with_sample_deviations_over_the_seeds(frame: pd.DataFrame) -> None:
    for table, key in zip(tables(frame), ("t2i/R@5", "mAP"), strict=True):
        for method in ("dual_infonce", "dual_triplet"):
            rows = frame[(frame["dataset"] == table.dataset) & (frame["method"] == method)]
            values = [100 * value for value in rows[key]]
            expected = f"{statistics.mean(values):.1f} ± {statistics.stdev(values):.1f}"
            assert table.cells.at[method, key.replace("/", " ")] == expected
            assert table.cells.at[method, "seeds"] == "3"
        costs = table.cells[table.cost_columns]
        assert not costs.map(lambda text: "±" in text).to_numpy().any()
        assert list(costs["wall time"]) == ["70 s", "90 s"] and list(costs["parameters"]) == ["1.23 M"] * 2
    lacking = frame[frame["seed"] == 0].copy()
    lacking.loc[lacking["method"] == "dual_infonce", "hard_negative_accuracy"] = None
    one = tables(lacking)[0].cells
    assert one.at["dual_infonce", "near-twin acc."] == "–" and one.at["dual_triplet", "near-twin acc."] != "–"
    assert not one.map(lambda text: "±" in text).to_numpy().any()


def test_what_validation_chose_stands_in_the_row(frame: pd.DataFrame) -> None:
    assert not any(CHOICES in table.cells for table in tables(frame))
    made = {
        ("dual_infonce", 0): '{"graph_at_test": true, "label_vote": 0.4}',
        ("dual_infonce", 1): '{"graph_at_test": false, "label_vote": 0.4}',
        ("dual_infonce", 2): '{"graph_at_test": false, "label_vote": 0.4}',
    }
    chosen = [made.get(key, "{}") for key in zip(frame["method"], frame["seed"], strict=True)]
    table = tables(frame.assign(choices=chosen))[1]
    assert table.cells[CHOICES].to_dict() == {
        "dual_infonce": "graph_at_test yes/no/no, label_vote 0.4",
        "dual_triplet": "–",
    }
    assert table.quality_columns[-1] == CHOICES and CHOICES in table.styled(str).to_html()


def test_the_best_by_the_objective_comes_first(frame: pd.DataFrame) -> None:
    means = frame.groupby(["dataset", "method"])["rSum"].mean()["flickr30k-mini"].sort_values(ascending=False)
    assert list(tables(frame)[0].cells.index) == list(means.index) == ["dual_infonce", "dual_triplet"]
    turned = frame.assign(rSum=600 - frame["rSum"])
    assert list(tables(turned)[0].cells.index) == ["dual_triplet", "dual_infonce"]


def test_marked_is_what_no_other_is_better_than_over_the_whole_table(frame: pd.DataFrame) -> None:
    for table in tables(frame):
        queries = {str(name): [*map(read_queries, rows["folder"])] for name, rows in table.rows.groupby("label")}
        keys = {heading: key for heading, (key, _) in find(map(str, table.rows)).items()}
        tested = [keys[heading] for heading in table.quality_columns[1:] if parts(keys[heading])]
        results = PairedResults(queries, tested)
        for heading in table.quality_columns[1:]:
            key, marked = keys[heading], list(table.cells.index[table.best[heading]])
            if key not in tested or key == "hard_negative_accuracy":
                assert marked == [], heading
                continue
            one, other = table.rows.groupby("label")[key].mean().sort_values(ascending=False).index
            difference = results.difference(one, other, key)
            assert difference.verdict in ("better", "not distinguishable")
            assert marked == ([one] if difference.verdict == "better" else list(table.cells.index))
        assert not table.best[["seeds", *table.cost_columns]].to_numpy().any()
    assert list(tables(frame)[0].best["i2t R@1"]) == [True, True]
    assert list(tables(frame)[0].best["t2i R@5"]) == [True, False]
    assert not tables(frame[frame["method"] == "dual_infonce"])[0].best.to_numpy().any()  # alone


def test_below_three_seeds_nothing_is_tested(frame: pd.DataFrame) -> None:
    one = frame[(frame["method"] == "dual_infonce") | (frame["seed"] < 2)]
    for table in tables(one):
        assert table.warning == "Not tested, because 3 seeds are needed: dual_triplet."
        assert not table.best.to_numpy().any() and set(table.differences["verdict"]) == {"untested"}


def test_a_method_that_nothing_changes_needs_one_seed(frame: pd.DataFrame) -> None:
    ready = (frame["method"] == "dual_triplet") & (frame["seed"] == 0)
    one = frame[(frame["method"] == "dual_infonce") | ready].copy()
    one["pretraining"] = "image-text"
    one.loc[ready, "epochs"] = 0
    for table in tables(one):
        assert not table.warning and set(table.differences["verdict"]) <= {"better", "not distinguishable"}
    trained = one.assign(epochs=1)
    assert all("3 seeds are needed: dual_triplet" in table.warning for table in tables(trained))
    two = frame[(frame["method"] == "dual_infonce") | (frame["seed"] < 2)].copy()
    two.loc[two["method"] == "dual_triplet", "epochs"] = 0
    assert all("3 seeds are needed: dual_triplet" in table.warning for table in tables(two))  # random: its seeds differ
    first = two[(two["method"] == "dual_triplet") & (two["seed"] == 0)]
    alike = pd.concat([two[two["method"] == "dual_infonce"], first, first.assign(seed=1)])
    assert not any(table.warning for table in tables(alike))


def _widths(frame: pd.DataFrame) -> list[float]:
    return [float(width) for table in tables(frame) for width in table.differences["high"] - table.differences["low"]]


def test_a_check_that_one_seed_fails_unranks_the_method(frame: pd.DataFrame) -> None:
    one = (frame["method"] == "dual_infonce") & (frame["seed"] == frame["seed"].max())
    failing = frame.assign(
        inductive=frame["inductive"] & ~one, audit_failed=frame["audit_failed"].where(~one, "subset, replay")
    )
    for table in tables(failing):
        assert not any("dual_infonce" in name for name in table.ranked)
        marked = [name for name in table.cells.index if "dual_infonce" in name]
        assert all(name.endswith("†") for name in marked) and not table.best.loc[marked].any(axis=None)
    assert any("dual_infonce" in name for table in tables(frame) for name in table.ranked)


def test_rows_of_one_training_are_paired_by_seed(frame: pd.DataFrame) -> None:
    paired, apart = _widths(frame.assign(training="t")), _widths(frame)
    assert paired != pytest.approx(apart)


def test_rows_of_other_budgets_are_apart_and_those_without_training_in_each(frame: pd.DataFrame) -> None:
    flickr = frame[frame["dataset"] == "flickr30k-mini"]
    short = '{"batch_size": 32, "patience": 2, "max_epochs": 3, "max_steps": 500, "max_seconds": 900}'
    less = flickr[flickr["method"] == "dual_infonce"].assign(method="less", budget=short, steps=500)
    ready = flickr[flickr["method"] == "dual_infonce"].assign(method="ready", budget="{}", steps=0, epochs=0)
    old = flickr[flickr["method"] == "dual_infonce"].assign(method="old", budget="{}", steps=0, training="")
    shown = tables(pd.concat([flickr, less, ready, old], ignore_index=True))
    methods = [sorted(table.cells.index) for table in shown]
    assert methods == [["dual_infonce", "dual_triplet", "ready"], ["less", "ready"], ["old", "ready"]]
    assert shown[0].cells["steps"].to_dict() == {"dual_infonce": "940", "dual_triplet": "940", "ready": "0"}
    assert shown[2].cells["steps"].to_dict() == {"old": "–", "ready": "0"}
    for table, here in zip(
        shown,
        (
            "20 epochs of batches of 128 pairs.",
            "3 epochs or 500 steps of batches of 32 pairs, stopped after 2 validations without progress, "
            "at most 15 min.",
            "a training budget that older results do not state.",
        ),
        strict=True,
    ):
        assert table.reason == f"Not ranked with the other tables of flickr30k-mini: here {here}"
    [alone] = tables(ready)
    assert list(alone.cells.index) == ["ready"] and not alone.reason


def test_a_column_in_which_nobody_beats_random_chance_has_no_marks(frame: pd.DataFrame, tmp_path: Path) -> None:
    """Near-twin accuracy of the store is 66 and 46 % of 40 pairs; then dual_infonce gets every pair right."""
    assert not tables(frame)[0].best["near-twin acc."].any()
    assert not tables(frame.assign(**{"chance/rSum": 300}))[0].best["rSum"].any()
    unbeaten = {f"chance/{metric}": 1000 for metric in ("i2t/mAP", "t2i/mAP", "mAP", "unseen/mAP")}
    assert [table.warning for table in tables(frame.assign(**unbeaten))] == [
        "",
        "No marks: no method beats random chance.",
    ]
    folders = [tmp_path / name for name in ("seed0", "seed1", "seed2")]
    best = frame["method"] == "dual_infonce"
    for old, new in zip(frame["folder"][best], folders, strict=False):
        queries = pd.read_parquet(Path(old, PER_QUERY))
        queries.loc[queries["direction"] == "hard", "rank"] = 1
        new.mkdir()
        queries.to_parquet(new / PER_QUERY)
    moved = frame[frame["dataset"] == "flickr30k-mini"].copy()
    moved.loc[moved["method"] == "dual_infonce", "folder"] = list(map(str, folders))
    moved.loc[moved["method"] == "dual_infonce", "hard_negative_accuracy"] = 1.0
    assert list(tables(moved)[0].best["near-twin acc."]) == [True, False]


def test_missing_outcomes_of_queries_are_a_warning(frame: pd.DataFrame, more: More) -> None:
    both = with_more(frame, more, method="other")
    table, untouched = tables(both)
    assert not table.best.to_numpy().any() and untouched.best.to_numpy().any()
    assert re.fullmatch(r"No marks: .*other/seed\d/per_query.parquet: no such file; .*", table.warning)


def test_an_empty_store_is_refused(tmp_path: Path) -> None:
    assert tables(pd.DataFrame()) == []
    with pytest.raises(InputError, match=f"{tmp_path}: no results yet; run a benchmark first"):
        load(tmp_path)
    with pytest.raises(InputError, match="no such results folder"):
        load(tmp_path / "none")


def test_a_method_that_failed_the_audit_is_neither_marked_nor_a_yardstick(frame: pd.DataFrame) -> None:
    assert list(tables(frame)[0].best["rSum"]) == [True, False]
    leaky = frame.assign(audit_failed=["pairs" if method == "dual_infonce" else "" for method in frame["method"]])
    assert not tables(leaky)[0].best.to_numpy().any()  # one honest method is left
    one_seed = tables(frame.assign(audit_failed=["pairs", *[""] * (len(frame) - 1)]))[0].cells
    assert one_seed["seeds"].to_dict() == {"dual_infonce †": "3", "dual_triplet": "3"}


def test_seeds_of_different_recipes_are_shown_and_not_ranked(frame: pd.DataFrame) -> None:
    best = frame["method"] == "dual_infonce"
    mixed = frame.assign(recipe=[f"r{seed > 0}" if of else "r" for of, seed in zip(best, frame["seed"], strict=True)])
    flickr = tables(mixed)[0]
    assert "dual_infonce" in flickr.cells.index and "dual_infonce" not in flickr.ranked and flickr.ranked
    assert not flickr.best.loc["dual_infonce"].any()
    assert "their seeds ran with different options, data or code: dual_infonce;" in flickr.warning
    assert not tables(frame.assign(recipe="r"))[0].warning


def test_trials_of_tuning_are_a_column_and_unequal_numbers_a_note(frame: pd.DataFrame) -> None:
    untuned = tables(frame)[0]
    assert "trials" not in untuned.cells and not untuned.warning
    equal = tables(frame.assign(trials=12))[0]
    assert "trials" in equal.main_columns and equal.cells["trials"].to_list() == ["12", "12"] and not equal.warning
    infonce = frame["method"] == "dual_infonce"
    unequal = tables(frame.assign(trials=24 * infonce))[0]
    assert unequal.warning == "Not tuned equally; trials: dual_infonce 24, dual_triplet 0."
    seeds = tables(
        frame.assign(trials=[12 + 12 * (of and seed) for of, seed in zip(infonce, frame["seed"], strict=False)])
    )[0]
    assert seeds.warning == "Not tuned equally; trials: dual_infonce 12 or 24 or 36, dual_triplet 12."


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("dataset", "other", None),
        ("pretraining", "unimodal", "here pretraining = unimodal."),
        ("fingerprint", "beef", "here fingerprint = beef."),
        ("protocol", {"ties": "optimistic", "gallery": "seen"}, "protocol gallery = seen, protocol ties = optimistic."),
        ("inductive", False, "Test items were encoded together (transductive): a diagnostic, not ranked."),
    ],
)
def test_rows_that_may_not_be_ranked_together_are_apart_and_say_why(
    frame: pd.DataFrame, field: str, value: Any, reason: str | None
) -> None:
    changed = frame.copy()
    rows = (changed["dataset"] == "flickr30k-mini") & (changed["method"] == "dual_infonce")
    changed.loc[rows, field] = json.dumps({**CAPTION, **value}) if isinstance(value, dict) else value
    shown = tables(changed)
    assert [len(table.cells) for table in shown] == [1, 1, 2] and field in GROUP
    assert not any(table.best.to_numpy().any() for table in shown[:2])
    apart = next(table for table in shown if "dual_infonce" in table.cells.index)
    assert apart.reason.endswith(reason) if reason else not apart.reason
    assert apart.ranked == (["dual_infonce"] if field != "inductive" else [])
    assert reason is None or field == "inductive" or shown[1].reason.startswith("Not ranked with the other tables of")
    assert not shown[2].reason


def test_methods_of_one_name_in_two_benchmarks_are_two_rows(frame: pd.DataFrame, more: More) -> None:
    table = tables(with_more(frame, more, benchmark="ablations"))[0]
    assert len(table.cells) == 3
    assert table.cells.loc["dual_infonce", "seeds"] == "3"
    seeds = table.cells["seeds"]
    (other,) = (name for name in seeds.index if name.endswith("ablations/flickr30k-mini/dual_triplet"))
    (mini,) = set(seeds.index) - {other, "dual_infonce"}
    assert mini.endswith("mini/flickr30k-mini/dual_triplet")
    assert (seeds[mini], seeds[other]) == ("3", "1")
    moved = frame.assign(folder=[str(Path("elsewhere") / Path(folder).relative_to("/")) for folder in frame["folder"]])
    assert tables(moved)[0].cells.equals(tables(frame)[0].cells)


def test_the_legend_explains_only_what_is_there(frame: pd.DataFrame) -> None:
    three, one = (legend(tables(rows), "*") for rows in (frame, frame[frame["seed"] == 0]))
    assert "±" in three and "±" not in one and "no other method is better" not in one
    assert "R@K" in three and "R@K" in one
    captions, _, labels = three.partition(" Labels: ")
    assert " Captions: R@K is the percentage of queries" in captions and "P@K" not in captions and "P@K" in labels
    assert not any(word in legend(tables(frame)[1:], "*") for word in ("Captions:", "Labels:", "R-Precision"))
