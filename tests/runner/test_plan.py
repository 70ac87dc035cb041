"""What a plan finds before anything runs: all errors at once, and which cells are done."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from small_benchmark import write

from itmbench.cli.main import main


def edited(spec: Path, change: dict[str, Any]) -> Path:
    """The benchmark with another shared config."""
    content = yaml.safe_load(spec.read_text())
    for part, options in change.items():
        content["config"].setdefault(part, {}).update(options)
    spec.write_text(yaml.safe_dump(content))
    return spec


@pytest.mark.parametrize(
    "option",
    [
        {"fast_dev_run": True},
        {"limit_val_batches": 0},
        {"limit_val_batches": 1},
        {"limit_test_batches": 0.5},
        {"overfit_batches": 1},
        {"enable_checkpointing": False},
        {"barebones": True},
    ],
)
def test_options_that_leave_no_best_epoch_are_refused(
    tmp_path: Path, option: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    spec = edited(write(tmp_path, "m"), {"trainer": option})
    assert main(["bench", str(spec), "--results", str(tmp_path / "results")]) == 2
    error = capsys.readouterr().err
    assert f"m on toy: trainer.{next(iter(option))} " in error and error.count("\n") == 1
    assert not (tmp_path / "results").exists()


def test_missing_data_are_reported_once_for_all_methods(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = write(tmp_path, "one", "two")
    data = {"class_path": "KarpathyCaptions", "init_args": {"root": str(tmp_path / "nowhere")}}
    (tmp_path / "data.yaml").write_text(yaml.safe_dump({"data": data}))
    assert main(["bench", str(spec), "--results", str(tmp_path / "results")]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("itmbench: toy: ") and str(tmp_path / "nowhere") in line


def test_the_same_error_of_several_methods_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = edited(write(tmp_path, "one", "two", "three"), {"data": {"init_args": {"sizee": 3}}})
    assert main(["bench", str(spec), "--results", str(tmp_path / "results"), "--dry-run"]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("itmbench: one on toy and 2 more: data: ToyData: Option 'sizee' is not accepted")


def test_a_changed_option_runs_again_and_others_do_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = write(tmp_path, "m", epochs=1)
    command = ["bench", str(spec), "--results", str(tmp_path / "results"), "--dry-run"]
    assert main(command[:-1]) == 0
    capsys.readouterr()
    for change, done in (
        ({}, True),
        ({"trainer": {"log_every_n_steps": 3}, "data": {"init_args": {"num_workers": 1}}}, True),
        ({"model": {"init_args": {"lr": 0.5}}}, False),
    ):
        edited(spec, change)
        assert main(command) == 0
        assert ("done before" in capsys.readouterr().out) is done, change
