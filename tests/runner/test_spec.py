"""Benchmark files: how configs come together, and what is said of a wrong one."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from itmbench.errors import InputError, InputErrors
from itmbench.runner.spec import load_cells, merge

DATA = {"data": {"class_path": "D", "init_args": {"root": "x", "batch_size": 8}}, "trainer": {"max_epochs": 1}}
METHOD = {"model": {"class_path": "M", "init_args": {"dim": 4}}}


def write(folder: Path, **changes: Any) -> Path:
    (folder / "data.yaml").write_text(yaml.safe_dump(DATA))
    (folder / "method.yaml").write_text(yaml.safe_dump(METHOD))
    spec = {
        "name": "b",
        "datasets": {"d1": "data.yaml", "d2": "data.yaml"},
        "methods": {"m": "method.yaml"},
        "seeds": [0, 1],
        "config": {"trainer": {"max_epochs": 3}},
    }
    path = folder / "bench.yaml"
    path.write_text(yaml.safe_dump({key: value for key, value in (spec | changes).items() if value is not None}))
    return path


def test_cells_are_datasets_times_methods_times_seeds(tmp_path: Path) -> None:
    cells = load_cells(write(tmp_path))
    assert [(cell.dataset, cell.method, cell.seed) for cell in cells] == [
        ("d1", "m", 0),
        ("d1", "m", 1),
        ("d2", "m", 0),
        ("d2", "m", 1),
    ]
    assert cells[1].config == DATA | METHOD | {"trainer": {"max_epochs": 3}, "seed_everything": 1}
    assert cells[1].folder == Path("b/d1/m/seed1")
    assert [str(cell) for cell in load_cells(tmp_path / "bench.yaml", "dataset=d2,seed=1")] == ["m on d2, seed 1"]


def test_pairs_can_be_left_out(tmp_path: Path) -> None:
    methods = {"m": "method.yaml", "m2": "method.yaml"}
    cells = load_cells(write(tmp_path, methods=methods, leave_out=[{"dataset": "d1", "method": "m2"}], seeds=[0]))
    assert [(cell.dataset, cell.method) for cell in cells] == [("d1", "m"), ("d2", "m"), ("d2", "m2")]


def test_overrides_apply_where_they_match_and_later_ones_win(tmp_path: Path) -> None:
    overrides = [
        {"dataset": "d2", "config": {"data": {"init_args": {"batch_size": 16}}, "trainer": {"max_epochs": 5}}},
        {"dataset": "d2", "method": "m", "config": {"trainer": {"max_epochs": 7}}},
    ]
    first, second = load_cells(write(tmp_path, overrides=overrides, seeds=[0]))
    assert first.config["data"]["init_args"] == {"root": "x", "batch_size": 8}
    assert second.config["data"]["init_args"] == {"root": "x", "batch_size": 16}
    assert [cell.config["trainer"]["max_epochs"] for cell in (first, second)] == [3, 7]


def test_a_changed_class_does_not_inherit_arguments() -> None:
    changed = merge(METHOD, {"model": {"class_path": "Other", "init_args": {"k": 1}}})
    assert changed == {"model": {"class_path": "Other", "init_args": {"k": 1}}}
    assert merge(METHOD, {"model": {"init_args": {"k": 1}}})["model"]["init_args"] == {"dim": 4, "k": 1}
    assert METHOD["model"]["init_args"] == {"dim": 4}


@pytest.mark.parametrize(
    ("changes", "only", "message"),
    [
        ({"colour": 1}, "", "colour: unknown key; choose one of name, datasets, methods"),
        ({"methods": None}, "", "methods: missing"),
        ({"methods": {}}, "", "methods: Dictionary should have at least 1 item"),
        ({"methods": {"m": "nowhere.yaml"}}, "", "nowhere.yaml: no such file; give its path, or the name of a"),
        ({"methods": {"m": "Sedra.yaml"}}, "", "no such file; did you mean configs/methods/sedra.yaml. give"),
        ({"overrides": [{"dataset": "d3", "config": {}}]}, "", r"overrides.0: no dataset d3 .* choose one of d1, d2"),
        ({"overrides": [{"dataset": "d1"}]}, "", "overrides.0.config: missing"),
        (
            {"overrides": [{"seed": 1, "config": {}}]},
            "",
            "overrides.0.seed: unknown key; choose one of dataset, method",
        ),
        ({"leave_out": [{"method": "m3"}]}, "", "leave_out.0: no method m3 in this benchmark"),
        ({"leave_out": [{}]}, "", "leave_out.0: names neither a dataset nor a method"),
        ({"name": "../b"}, "", r"bench.yaml: name: cannot name a folder of results.*'../b'"),
        ({"name": 2024}, "", "name: Input should be a valid string, not 2024"),
        ({"methods": {"a/b": "method.yaml"}}, "", "methods.a/b: cannot name a folder"),
        ({"methods": {"m": METHOD}}, "", "methods.m: give a config file or a list of them, not a mapping$"),
        ({"methods": {"m": [METHOD]}}, "", "methods.m.0: give a config file or a list of them, not a mapping$"),
        ({"datasets": {"d": 3}}, "", "datasets.d: give a config file or a list of them, not 3$"),
        ({"seeds": {"first": 0}}, "", "seeds: give a list, not a mapping$"),
        ({"methods": {"m": []}}, "", r"methods.m: .* should have at least 1 item .*, not \[\]"),
        ({"methods": {"m": "."}}, "", r"cannot be read \(Is a directory\)"),
        ({"config": [1]}, "", r"config: give a mapping, not \[1\]"),
        ({"config": {"seed_everything": 7}}, "", "config: has seed_everything; give seeds instead$"),
        ({"seeds": [0, 0]}, "", r"seeds: give each seed once, not \[0, 0\]"),
        ({"seeds": [2**32]}, "", "seeds.0: Input should be less than 4294967296"),
        ({"seeds": [True]}, "", "seeds.0: Input should be a valid integer, not True"),
        ({"leave_out": [{"method": "m"}]}, "", "leave_out leaves nothing to run"),
        ({}, "dataset=d3", "--only dataset=d3: no such dataset; choose one of d1, d2"),
        ({}, "colour=red", "colour is not one of benchmark, dataset, method, seed"),
        ({}, "dataset=d1,d2", "--only dataset=d1,d2: d2 is not KEY=NAME; write dataset=d1,dataset=d2"),
        ({}, "m", "--only m: m is not KEY=NAME; write method=m"),
        ({}, "seed=1,x", "--only x: x is not one of benchmark, dataset, method, seed; write method=scan,seed=0"),
        ({}, 3, "only 3: is not text; write method=scan,seed=0"),
        (
            {"methods": {"m": "method.yaml", "n": "method.yaml"}, "leave_out": [{"dataset": "d1", "method": "n"}]},
            "dataset=d1,method=n",
            "no cell matches all of these",
        ),
    ],
)
def test_wrong_files_are_one_line(tmp_path: Path, changes: dict[str, Any], only: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        load_cells(write(tmp_path, **changes), only)
    assert "\n" not in str(error.value) and (only or str(tmp_path) in str(error.value))


def test_everything_wrong_is_reported_at_once(tmp_path: Path) -> None:
    with pytest.raises(InputErrors) as error:
        load_cells(write(tmp_path, colour=1, seeds=["0"], methods={"m": 3}))
    assert [line.partition(": ")[2].partition(":")[0] for line in error.value.lines] == [
        "methods.m",
        "seeds.0",
        "colour",
    ]
    with pytest.raises(InputErrors) as error:
        load_cells(write(tmp_path, methods={"m": ["no.yaml", "none.yaml"]}, leave_out=[{"dataset": "d3"}]))
    assert len(error.value.lines) == 3
