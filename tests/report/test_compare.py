"""``itmbench compare`` on a small store."""

from pathlib import Path

import pytest

from itmbench.cli import main


def test_says_which_method_is_better_and_by_how_much(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "dual_infonce", "--results", str(results), "--format", "markdown"]) == 0
    out = capsys.readouterr().out
    lines = [line.split(" | ") for line in out.splitlines() if line.startswith(("| rSum", "| mAP"))]
    assert [line[1] for line in lines] == ["dual_triplet"] * 2
    assert all(line[2].startswith("+") and line[4].startswith("better") for line in lines)
    assert "2 seeds" in out


def test_the_turned_comparison_is_worse(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "dual_triplet", "dual_infonce", "--results", str(results)]) == 0
    out = capsys.readouterr().out
    assert "worse" in out and "better" not in out


def test_unknown_methods_and_empty_stores_are_told_in_one_line(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", "nobody", "--results", str(results)]) == 2
    assert "no table holds nobody" in capsys.readouterr().err
    assert main(["compare", "dual_infonce", "nobody", "--results", str(results)]) == 2
    assert "there are dual_infonce, dual_triplet" in capsys.readouterr().err
    assert main(["compare", "dual_infonce", "--results", str(tmp_path)]) == 2
    assert "no results in it yet" in capsys.readouterr().err
