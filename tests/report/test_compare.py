"""``itmbench compare`` on a small store."""

import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from results_store import write_store

from itmbench import store
from itmbench.cli.main import main
from itmbench.evaluation.paired import PairedResults, holm
from itmbench.report.compare import differences
from itmbench.report.queries import read_queries
from itmbench.report.tables import tables


def lines(out: str) -> list[list[str]]:
    """The rows of the Markdown tables in some output."""
    rows = [[cell.strip() for cell in line.strip("|\n").split("|")] for line in out.splitlines() if line[:1] == "|"]
    return [row for row in rows if row[0] not in ("metric", "---")]


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A store to change."""
    return write_store(tmp_path / "results")


def change(root: Path, method: str, **changes: object) -> None:
    """Other fields for all results of a method."""
    for folder, result in list(store.results(root)):
        if result.method == method:
            replace(result, **changes).save(folder)  # type: ignore[arg-type]


def test_says_which_method_is_better_and_by_how_much(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "dual_infonce", "--results", str(results), "--format", "markdown"]) == 0
    out = capsys.readouterr().out
    rows = [row for row in lines(out) if row[0] in ("rSum", "mAP")]
    assert [row[1:3] for row in rows] == [["dual_infonce", "dual_triplet"]] * 2
    assert all(row[3].startswith("+") and row[6] == "better" for row in rows)
    assert out.count("Seeds: 0, 1.\n") == 2
    assert "for the tests shown (5)" in out


def test_the_turned_comparison_is_worse(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "dual_triplet", "dual_infonce", "--results", str(results)]) == 0
    verdicts = [
        line.split()[-1] for line in capsys.readouterr().out.splitlines() if "dual_triplet dual_infonce" in line
    ]
    assert "worse" in verdicts and "better" not in verdicts


def test_without_a_method_all_pairs_are_compared(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed in (0, 1):
        new = own / "mini" / "flickr30k-mini" / "third" / f"seed{seed}"
        shutil.copytree(own / "mini" / "flickr30k-mini" / "dual_triplet" / f"seed{seed}", new)
        replace(store.Result.load(new), method="third").save(new)
    assert main(["compare", "--results", str(own), "--format", "markdown"]) == 0
    rows = lines(capsys.readouterr().out)
    assert len(rows) == 2 * 3 + 3 * 1
    assert [row[1:3] for row in rows if row[0] == "rSum"] == [
        ["dual_infonce", "dual_triplet"], ["dual_infonce", "third"], ["dual_triplet", "third"]
    ]  # fmt: skip
    [equal] = [row for row in rows if row[0] == "rSum" and row[1:3] == ["dual_triplet", "third"]]
    assert equal[3:] == ["+0.0", equal[4], "1.000", "not distinguishable"]


def test_p_values_are_corrected_for_everything_shown(results: Path, frame: pd.DataFrame) -> None:
    shown = tables(frame)
    found = differences(shown)
    raw = [
        PairedResults(
            {str(name): [*map(read_queries, of["folder"])] for name, of in table.rows.groupby("label")}, [metric]
        ).difference("dual_infonce", "dual_triplet", metric).p
        for table, rows in found for metric in rows["metric"]
    ]  # fmt: skip
    assert len(raw) == 5
    corrected = [p for _, rows in found for p in rows["p"]]
    assert corrected == pytest.approx(holm(raw), abs=0.01)
    alone = [rows["p"].iloc[0] for table in shown for _, rows in differences([table])]
    assert alone[0] <= corrected[0] and alone != [corrected[0], corrected[2]]


def test_different_seeds_are_told(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(own / "mini" / "flickr30k-mini" / "dual_triplet" / "seed0")
    assert main(["compare", "--results", str(own)]) == 0
    assert "Seeds differ: dual_infonce 0, 1; dual_triplet 1; in common 1. Every" in capsys.readouterr().out


def test_rows_that_may_not_be_ranked_together_are_not_compared(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change(own, "dual_triplet", pretraining="unimodal")
    assert main(["compare", "dual_triplet", "--results", str(own)]) == 2
    err = capsys.readouterr().err
    assert "no two of the methods asked for may be compared" in err and err.count("\n") == 1
    assert "here pretraining = unimodal" in err and "here pretraining = scratch" in err


def test_what_was_left_out_is_told_with_its_reason(
    own: Path, capsys: pytest.CaptureFixture[str], more: Callable[..., pd.DataFrame]
) -> None:
    other = Path(more(benchmark="other", pretraining="unimodal", method="dual_infonce")["folder"].iloc[0])
    shutil.copytree(other, own / "other" / "flickr30k-mini" / "dual_infonce" / "seed0")
    assert main(["compare", "dual_infonce", "--results", str(own)]) == 0
    out = capsys.readouterr().out
    assert re.search(r"Not compared: flickr30k-mini: .*Not ranked with .* here pretraining = unimodal", out)
    change(own, "dual_infonce", inductive=False)
    assert main(["compare", "dual_infonce", "--results", str(own)]) == 2
    assert "a diagnostic, not ranked" in capsys.readouterr().err


def test_a_method_that_failed_the_audit_is_compared_under_its_name(
    own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change(own, "dual_infonce", audit={"alone": {"passed": False, "found": 1.0, "bound": 0.1}})
    assert main(["compare", "dual_infonce", "--results", str(own)]) == 0
    out = capsys.readouterr().out
    assert "dual_infonce †" in out and "† failed the leak audit" in out


def test_values_that_are_not_kept_per_query_are_no_test(frame: pd.DataFrame) -> None:
    [(_, rows), _] = differences(tables(frame.assign(mAP=0.5)))
    assert list(rows["verdict"][rows["metric"] == "mAP"]) == ["untested"]
    assert rows["p"][rows["metric"] != "mAP"].notna().all()


def test_unknown_methods_and_empty_stores_are_told_in_one_line(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for methods in (["nobody"], ["dual_infonce", "nobody"]):
        assert main(["compare", *methods, "--results", str(results)]) == 2
        assert "no results of nobody; there are dual_infonce, dual_triplet" in capsys.readouterr().err
    assert main(["compare", "dual_infonce", "--results", str(tmp_path)]) == 2
    assert "no results in it yet" in capsys.readouterr().err
