"""What an older version has written is still read, and what is wrong with a result is one line."""

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from results_store import CAPTION, change, make_result, save

from itmbench import store
from itmbench.errors import InputError

SCHEMA_1 = Path(__file__).with_name("result_schema1.json")
DATA = {"name": "toy", "fingerprint": "f", "counts": []}


@pytest.fixture
def cell(tmp_path: Path) -> Path:
    folder = tmp_path / "cell"
    save(make_result("toy", "dual_infonce", 0, {"rSum": 100.0}), folder)
    return folder


def test_a_result_of_schema_1_is_read(tmp_path: Path) -> None:
    (tmp_path / "cell").mkdir()
    shutil.copy(SCHEMA_1, tmp_path / "cell" / store.RESULT)
    old = store.Result.load(tmp_path / "cell")
    stored = json.loads(SCHEMA_1.read_text())
    assert asdict(old) == stored | {
        "audit": {}, "recipe": "", "training": "", "steps": 0, "budget": {}, "choices": {}, "trials": 0,
    }  # fmt: skip
    assert old.schema == 1 < store.SCHEMA
    frame = store.load_results(tmp_path)
    assert list(frame["audit_failed"]) == [""]
    assert frame["rSum"][0] == stored["metrics"]["rSum"]
    assert frame["image_flops"][0] == stored["flops"]["image"]


def test_what_is_saved_is_loaded(cell: Path) -> None:
    result = make_result("toy", "dual_infonce", 0, {"rSum": 100.0, "i2t/MedR": 1.5})
    budget = {"batch_size": 8, "max_epochs": 3, "max_steps": -1}
    result = replace(result, steps=90, budget=budget, training="t", choices={"graph_at_test": True})
    result.save(cell)
    assert store.Result.load(cell) == result
    row = store.load_results(cell).iloc[0]
    assert (row.steps, row.training, row.budget) == (90, "t", '{"batch_size": 8, "max_epochs": 3, "max_steps": -1}')
    assert row.choices == '{"graph_at_test": true}'


RECALLS = {f"{side}/R@{k}": 0.5 for side in ("i2t", "t2i") for k in (1, 5, 10)}


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"seed": "0"}, "seed: Input should be a valid integer"),
        ({"metrics": {"rSum": "100"}}, "metrics.rSum: Input should be a valid number"),
        ({"metrics": {"mAP": 0.5}}, "metrics: no rSum, the objective of the protocol"),
        ({"key": None}, "key: Field required"),
        ({"colour": "red"}, "colour: Unexpected keyword argument"),
        ({"protocol": {"name": "caption", "objective": "rSum"}}, "protocol.version: Field required"),
        ({"data": {"counts": []}}, "data.name: Field required; data.fingerprint: Field required"),
        ({"parameters": {"all": 3}}, "parameters.trained: Field required"),
        ({"audit": {"alone": {"found": 1}}}, "audit.alone.passed: Field required"),
        ({"seed": "0", "inductive": 1}, "seed: .*; inductive: "),
        ({"schema": 99}, "schema 99 of a newer itmbench, this one reads up to 4; update it"),
        ({"protocol": CAPTION | {"objective": ["rSum"]}}, "protocol.objective"),
        ({"protocol": CAPTION | {"objective": "chance/rSum"}}, "no chance/rSum"),
        ({"protocol": CAPTION | {"ties": ["x"]}}, "protocol.ties"),
        ({"protocol": CAPTION | {"normaliser": ["x"]}}, "protocol.normaliser"),
        ({"metrics": {"rSum": 1.0, "i2t/R@1": 1.5}}, "metrics.i2t/R@1: 1.5 cannot be"),
        ({"metrics": {"rSum": 1.0, "t2i/R@5": -0.1}}, "metrics.t2i/R@5: -0.1 cannot be"),
        ({"metrics": {"rSum": 601.0}}, "metrics.rSum: 601 cannot be"),
        ({"metrics": {"rSum": 1.0, "t2i/MedR": float("inf")}}, "metrics.t2i/MedR: inf cannot be"),
        ({"metrics": RECALLS | {"rSum": 60.0}}, "metrics.rSum: 60, but by its parts 300"),
        ({"metrics": RECALLS | {"rSum": 300.0, "i2t/R@5": 0.9}}, "metrics.rSum: 300, but by its parts 340"),
        ({"parameters": {"all": 10**400, "trained": 0}}, "a number of 401 digits"),
        ({"seed": -1}, "seed: Input should be greater than or equal to 0"),
        ({"finished": "yesterday"}, "finished"),
        ({"git": {"dirty": True}}, "git.commit"),
        ({"data": DATA | {"counts": 5}}, "data.counts"),
        ({"data": DATA | {"counts": [{"what": "images", "found": "3", "published": None}]}}, "data.counts.0.found"),
        ({"data": DATA | {"counts": [{"found": 3}]}}, "data.counts.0.what"),
        ({"data": DATA | {"name": ["x"]}}, "data.name"),
        ({"data": DATA | {"fingerprint": ["x"]}}, "data.fingerprint"),
        ({"pretraining": "magic"}, "pretraining"),
        ({"budget": {"max_epochs": "20"}}, "budget.max_epochs"),
        ({"budget": {"max_epochs": 20}}, "budget.max_steps: Field required"),
        ({"audit": None}, "audit: missing in schema 4"),
        ({"trials": None}, "trials: missing in schema 4"),
        ({"schema": 3}, "training: not yet in schema 3"),
        ({"audit": {"alone": {"passed": "no"}}}, "audit.alone.passed"),
        ({"method": "a\x1b]0;b\x07"}, "control characters"),
        ({"versions": {"\x9b2J": "1"}}, "control characters"),
        ({"method": "a\n\nb"}, "control characters"),
        ({"dataset": "a\ufffe"}, "control characters"),
        ({"dataset": "a\ud83d"}, "control characters"),
        ({"method": "a\u202eb"}, "control characters"),
    ],
)
def test_what_is_wrong_with_a_result_is_told_by_field_in_one_line(
    cell: Path, fields: dict[str, Any], words: str
) -> None:
    change(cell, **fields)
    with pytest.raises(InputError, match=words) as error:
        store.Result.load(cell)
    assert "\n" not in str(error.value) and str(cell / store.RESULT) in str(error.value)


DIGITS = b'{"seed": ' + b"9" * 5000 + b"}"


@pytest.mark.parametrize("content", [b"", b"[]", b'{"key": "a', b'{"key": "\xff"}', b"[" * 100_000, DIGITS])
def test_a_file_that_is_no_result_is_told_in_one_line(cell: Path, content: bytes) -> None:
    (cell / store.RESULT).write_bytes(content)
    with pytest.raises(InputError, match=r"not a result .*run the cell again"):
        store.Result.load(cell)
