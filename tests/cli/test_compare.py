"""``itmbench compare`` on a small store."""

import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from results_store import write_store

from itmbench import store
from itmbench.cli.main import main


def rows(out: str) -> list[list[str]]:
    """The rows of the Markdown tables in some output."""
    lines = [[cell.strip() for cell in line.strip("|\n").split("|")] for line in out.splitlines() if line[:1] == "|"]
    return [line for line in lines if line[0] != "metric" and line[0][:1] != ":"]


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A store to change."""
    return write_store(tmp_path / "results")


def change(root: Path, method: str, **changes: object) -> None:
    """Change fields of all results of a method."""
    for folder, result in list(store.results(root)):
        if result.method == method:
            replace(result, **changes).save(folder)  # type: ignore[arg-type]


def test_says_which_method_is_better_and_by_how_much(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "dual_infonce", "--results", str(results), "--format", "markdown"]) == 0
    out = capsys.readouterr().out
    overall = [row for row in rows(out) if row[0] in ("rSum", "mAP")]
    assert [row[1:3] for row in overall] == [["dual_infonce", "dual_triplet"]] * 2
    assert all(row[3].startswith("+") and row[6] == "better" for row in overall)
    assert [row[0] for row in rows(out)] == ["rSum", "near-twin acc.", "i2t mAP", "t2i mAP", "mAP"]
    assert out.count("Seeds: 0, 1, 2.\n") == 2
    assert "hold for all methods and marked columns of a table together" in out
    assert main(["compare", "dual_triplet", "dual_infonce", "--results", str(results)]) == 0
    out = capsys.readouterr().out
    verdicts = [line.split()[-1] for line in out.splitlines() if "dual_triplet dual_infonce" in line]
    assert "worse" in verdicts and "better" not in verdicts


def test_without_a_method_all_pairs_are_compared(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed in (0, 1, 2):
        new = own / "mini" / "flickr30k-mini" / "third" / f"seed{seed}"
        shutil.copytree(own / "mini" / "flickr30k-mini" / "dual_triplet" / f"seed{seed}", new)
        replace(store.Result.load(new), method="third").save(new)
    for seed in (1, 2):
        shutil.rmtree(own / "mini" / "flickr30k-mini" / "dual_infonce" / f"seed{seed}")
    assert main(["compare", "--results", str(own), "--format", "markdown"]) == 0
    out = capsys.readouterr().out
    shown = rows(out)
    assert len(shown) == 2 * 3 + 3 * 1
    pairs = [["dual_infonce", "dual_triplet"], ["dual_infonce", "third"], ["dual_triplet", "third"]]
    assert sorted(sorted(row[1:3]) for row in shown if row[0] == "rSum") == pairs
    [equal] = [row for row in shown if row[0] == "rSum" and {*row[1:3]} == {"dual_triplet", "third"}]
    assert equal[3:] == ["+0.0", equal[4], "1", "not distinguishable"]
    untested = [row for row in shown if "dual_infonce" in row[1:3] and row[0] == "rSum"]
    assert len(untested) == 2 and all(row[4:] == ["–", "–", "untested"] for row in untested)
    assert "Not tested, because 3 seeds are needed: dual_infonce." in out
    assert re.search("Seeds differ: .*dual_infonce 0; .*third 0, 1, 2; in common: 0. Each method", out)


def test_rows_that_may_not_be_ranked_together_are_not_compared(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change(own, "dual_triplet", pretraining="unimodal")
    assert main(["compare", "dual_triplet", "--results", str(own)]) == 2
    err = capsys.readouterr().err
    assert "no two of these methods can be compared" in err and err.count("\n") == 1
    assert "here pretraining = unimodal" in err and "here pretraining = scratch" in err


def test_what_was_left_out_is_listed_with_its_reason(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = own / "other" / "flickr30k-mini" / "dual_infonce" / "seed0"
    shutil.copytree(own / "mini" / "flickr30k-mini" / "dual_triplet" / "seed0", other)
    result = store.Result.load(other)
    replace(result, benchmark="other", method="dual_infonce", pretraining="unimodal").save(other)
    assert main(["compare", "dual_infonce", "--results", str(own)]) == 0
    out = capsys.readouterr().out
    assert re.search(r"Not compared: flickr30k-mini: .*Not ranked with .* here pretraining = unimodal", out)
    change(own, "dual_infonce", inductive=False)
    assert main(["compare", "dual_infonce", "--results", str(own)]) == 2
    assert "a diagnostic, not ranked" in capsys.readouterr().err


def test_a_dataset_without_one_of_the_methods_is_left_out_for_that(
    own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = own / "mini" / "mirflickr-mini" / "dual_triplet"
    shutil.rmtree(labels / "seed2")  # would be a reason of its own
    for folder, result in list(store.results(own)):
        if folder.parent == labels:
            other = labels.with_name("other") / folder.name
            shutil.copytree(folder, other)
            replace(result, method="other").save(other)
    shutil.rmtree(labels)
    assert main(["compare", "dual_infonce", "dual_triplet", "--results", str(own)]) == 0
    [line] = [line for line in capsys.readouterr().out.splitlines() if line.startswith("Not compared")]
    assert line.startswith("Not compared: mirflickr-mini: ") and line.endswith(". No results of dual_triplet.")
    assert main(["compare", "other", "dual_triplet", "--results", str(own)]) == 2
    assert "12.3. No results of other. mirflickr-mini: " in capsys.readouterr().err


def test_a_name_that_two_benchmarks_use_is_asked_for_by_its_folder(
    own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed in (0, 1, 2):
        here = own / "mini" / "flickr30k-mini" / "dual_triplet" / f"seed{seed}"
        there = own / "again" / "flickr30k-mini" / "dual_triplet" / f"seed{seed}"
        shutil.copytree(here, there)
        replace(store.Result.load(there), benchmark="again").save(there)
    folders = "again/flickr30k-mini/dual_triplet or mini/flickr30k-mini/dual_triplet"
    command = ["compare", "dual_triplet", "dual_infonce", "--results", str(own)]
    assert main(command) == 0
    out = capsys.readouterr().out
    assert f". Several benchmarks hold dual_triplet, so name {folders}.\n" in out
    shutil.rmtree(own / "mini" / "mirflickr-mini")
    assert main(command) == 2
    assert f"{own}: several benchmarks hold dual_triplet, so name {folders}\n" in capsys.readouterr().err
    assert main(["compare", "again/flickr30k-mini/dual_triplet", "--results", str(own), "--format=markdown"]) == 0
    equal = next(row for row in rows(capsys.readouterr().out) if row[2] == "mini/flickr30k-mini/dual_triplet")
    assert equal[3:] == ["+0.0", "+0.0 to +0.0", "1", "not distinguishable"]


def test_a_method_that_failed_the_audit_is_compared_under_its_name(
    own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change(own, "dual_infonce", audit={"alone": {"passed": False, "found": 1.0, "bound": 0.1}})
    assert main(["compare", "dual_infonce", "--results", str(own)]) == 0
    out = capsys.readouterr().out
    assert "dual_infonce †" in out and "† failed the leak audit" in out


def test_unknown_methods_and_empty_stores_are_one_line(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for methods in (["nobody"], ["dual_infonce", "nobody"]):
        assert main(["compare", *methods, "--results", str(results)]) == 2
        assert "no results of nobody; choose one of dual_infonce, dual_triplet" in capsys.readouterr().err
    assert main(["compare", "dual_infonce", "--results", str(tmp_path)]) == 2
    assert "no results yet; run a benchmark first" in capsys.readouterr().err
