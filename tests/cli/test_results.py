"""``itmbench results`` as its users meet it."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from results_store import write_store

from itmbench import store
from itmbench.cli.main import main

CELL = "mini/flickr30k-mini/dual_infonce/seed0"


@pytest.fixture
def own(tmp_path: Path) -> Path:
    return write_store(tmp_path / "results", seeds=(0, 1))


def test_list_has_a_line_a_cell(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["results", "list", "--results", str(results)]) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split() == ["benchmark", "dataset", "method", "seed", "objective", "finished", "folder"]
    cells = list(store.results(results))
    assert len(lines) == len(cells) == 12
    for line, (folder, result) in zip(lines, cells, strict=True):
        value = result.metrics.get("rSum") or 100 * result.metrics["mAP"]
        wanted = ["mini", result.dataset, result.method, str(result.seed), result.protocol["objective"], f"{value:.1f}"]
        assert line.split() == [*wanted, f"2026-01-0{result.seed + 1}", "12:00", str(folder.relative_to(results))]


@pytest.mark.parametrize(
    ("only", "cells"),
    [
        (["seed=1"], 4),
        (["dataset=mirflickr-mini"], 6),
        (["method=dual_triplet,seed=0"], 2),
        (["benchmark=mini"], 12),
        (["seed=1,seed=2"], 8),
        (["seed=1", "seed=2,dataset=mirflickr-mini"], 4),
    ],
)
def test_list_keeps_what_is_asked_for(
    results: Path, only: list[str], cells: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["results", "list", "--results", str(results), *(f"--only={pairs}" for pairs in only)]) == 0
    lines = capsys.readouterr().out.splitlines()[1:]
    assert len(lines) == cells
    wanted = [pair.split("=") for pairs in only for pair in pairs.split(",")]
    for key, place in {"dataset": 1, "method": 2, "seed": 3}.items():
        values = [value for name, value in wanted if name == key]
        assert not values or {line.split()[place] for line in lines} == set(values)


def test_list_refuses_wrong_filters(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for only, message in (("seed=7", "no such seed; choose one of 0, 1"), ("colour=red", "colour is not one of")):
        assert main(["results", "list", "--results", str(results), "--only", only]) == 2
        assert f"itmbench: --only {only}: {message}" in capsys.readouterr().err


def test_show_tells_everything(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["results", "show", CELL, "--results", str(results)]) == 0
    out = capsys.readouterr().out
    content = json.loads((results / CELL / store.RESULT).read_text())
    assert yaml.safe_load(out.partition("\n")[2].partition("measured\n")[0]) == content
    assert "Ties lose" in out and "per_query.parquet" in out
    assert main(["results", "show", "nothing", "--results", str(results)]) == 2
    assert "nothing: no such cell" in capsys.readouterr().err


def test_rm_removes_all_cells_or_none(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = CELL.replace("seed0", "seed1")
    assert main(["results", "rm", CELL, "nothing", "--results", str(own)]) == 2
    assert (own / CELL).exists()
    assert main(["results", "rm", CELL, other, CELL, "--results", str(own)]) == 0
    assert capsys.readouterr().out.splitlines() == [f"removed {own / CELL}", f"removed {own / other}"]
    assert len(list(store.results(own))) == 6


def test_merge_says_what_it_did_and_fails_on_a_conflict(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = own.with_name("other")
    shutil.copytree(own, other)
    shutil.rmtree(own / CELL)
    assert main(["results", "merge", str(other), "--results", str(own)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"added {CELL}",
        "1 added, 7 here already, 0 rerun elsewhere, 0 in conflict, 0 not added",
    ]
    path = other / CELL / store.RESULT
    there = store.Result.load(path.parent)
    elsewhere = {**there.hardware, "cpu": "Another"}
    replace(there, metrics=there.metrics | {"chance/rSum": 1.0}, hardware=elsewhere).save(path.parent)
    assert main(["results", "merge", str(other), "--results", str(own)]) == 0
    out = capsys.readouterr().out
    assert out.startswith("0 added, 7 here already, 1 rerun elsewhere, 0 in conflict, 0 not added\nRERUN ")
    assert "cpu A processor here, Another there" in out
    path.write_text(path.read_text().replace('"key": "', '"key": "x'))
    assert main(["results", "merge", str(other), "--results", str(own)]) == 1
    out, err = capsys.readouterr()
    assert out == "0 added, 7 here already, 0 rerun elsewhere, 1 in conflict, 0 not added\n"
    assert err.startswith(f"CONFLICT {CELL}: key flickr30k-mini-dual_infonce-0 here, xflickr30k-mini")


def test_merge_tells_what_it_did_not_add(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = own.with_name("other")
    own.rename(other)
    (other / CELL / store.PER_QUERY).unlink()
    assert main(["results", "merge", str(other), "--results", str(own)]) == 1
    out, err = capsys.readouterr()
    assert out.endswith("7 added, 0 here already, 0 rerun elsewhere, 0 in conflict, 1 not added\n")
    assert err == f"NOT ADDED {CELL}: no per_query.parquet; run the cell again\n" and not (own / CELL).exists()
