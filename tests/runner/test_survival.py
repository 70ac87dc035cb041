"""A benchmark that is killed, stopped, shared or partly broken: what is left, and what the next call makes of it."""

import errno
import gc
import json
import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import torch
import yaml
from small_benchmark import FILES, bench, content, ended, kill_in, start, unfinished, write
from toy import TOY_MODEL

from itmbench import logs, store
from itmbench.cli.main import main
from itmbench.methods.base import Matcher
from itmbench.runner import cell, running, tracker, worker
from itmbench.runner import run as runner
from itmbench.runner.callbacks import Checkpoint, EpochLines
from itmbench.runner.lease import Lease, Lost
from itmbench.runner.lightning import MatcherCLI
from itmbench.runner.plan import Planner, Request
from itmbench.runner.spec import load_cells


@pytest.fixture(autouse=True)
def _progress() -> None:
    """Calls from Python show progress only where it was asked for."""
    logs.configure()


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], float]:
    """A benchmark of one cell, what it leaves, and the seconds that it takes."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    spec = write(folder, "m")
    assert not runner.run(spec, folder / "results")  # in this process: those that are forked from it are quick then
    started = time.perf_counter()
    assert ended(start([str(spec), str(folder / "again")], folder / "log")) == 0
    seconds = time.perf_counter() - started
    left = content(folder / "results")
    assert content(folder / "again") == left
    assert [cell[0] for cell in left.values()] == [FILES]
    return spec, left, seconds


def test_killed_at_any_moment_it_ends_with_the_same_results(
    tmp_path: Path, uninterrupted: tuple[Path, dict[str, Any], float]
) -> None:
    spec, whole, seconds = uninterrupted
    command = [str(spec), str(tmp_path / "results")]
    for share in (0.3, 0.5, 0.7):
        process = start(command, tmp_path / "log")
        process.join(seconds * (share + random.uniform(-0.1, 0.1)))
        process.kill()
        process.join()
    assert ended(start(command, tmp_path / "log")) == 0
    assert content(tmp_path / "results") == whole
    assert not unfinished(tmp_path / "results")


@pytest.mark.parametrize(
    ("where", "name", "call", "after", "trains"),
    [
        (torch, "save", 4, False, True),  # in the midst of a second last.ckpt
        (store, "commit", 1, False, False),
        (store, "commit", 1, True, False),
    ],
)
def test_killed_while_it_writes_it_ends_with_the_same_results(
    tmp_path: Path,
    uninterrupted: tuple[Path, dict[str, Any], float],
    where: Any,
    name: str,
    call: int,
    after: bool,
    trains: bool,
) -> None:
    spec, whole, _ = uninterrupted
    command = [str(spec), str(tmp_path / "results")]
    killed = start(command, tmp_path / "log", lambda: kill_in(where, name, call, after))
    assert ended(killed) == -signal.SIGKILL
    printed = (tmp_path / "log").read_text()
    # It goes on from another place, with the data elsewhere and loaded by another process.
    command = [str(write(tmp_path, "m", num_workers=1)), str(tmp_path / "results")]
    assert ended(start(command, tmp_path / "log")) == 0
    assert ("epoch" in (tmp_path / "log").read_text().removeprefix(printed)) == trains
    assert content(tmp_path / "results") == whole


def test_a_cell_again_with_loader_processes_and_alone_gives_the_same_results(
    tmp_path: Path, uninterrupted: tuple[Path, dict[str, Any], float]
) -> None:
    spec, whole, _ = uninterrupted
    folder = spec.parent / "results" / "small" / "toy" / "m" / "seed0"
    # From its own config, by the commands for single runs.
    options = ["--config", str(folder / "config.yaml"), "--trainer.default_root_dir", str(tmp_path)]
    MatcherCLI(["fit", *options, "--data.num_workers=2"])
    best = next(tmp_path.rglob("best.ckpt"))
    tested = MatcherCLI(["test", *options, f"--ckpt_path={best}"])
    evaluation = tested.kept.evaluation
    assert evaluation is not None
    _, numbers, queries, weights = whole["small/toy/m/seed0"]
    again = torch.load(best, weights_only=True)["state_dict"]
    assert {key: value.tolist() for key, value in again.items()} == weights
    assert evaluation.metrics == numbers[0]
    pd.DataFrame(evaluation.per_query).to_parquet(tmp_path / "queries")
    assert (tmp_path / "queries").read_bytes() == queries


def wait_in_the_second_epoch() -> None:
    """Be there when the signal comes, however busy the machine is."""
    go_on = EpochLines.on_validation_end

    def wait(self: EpochLines, trainer: Any, model: Any) -> None:
        go_on(self, trainer, model)
        if trainer.current_epoch == 1:
            time.sleep(60)

    EpochLines.on_validation_end = wait  # type: ignore[method-assign, assignment]


@pytest.mark.parametrize("which", [signal.SIGINT, signal.SIGTERM])
def test_stopped_it_ends_cleanly_and_goes_on(
    tmp_path: Path, uninterrupted: tuple[Path, dict[str, Any], float], which: signal.Signals
) -> None:
    spec, whole, _ = uninterrupted
    command = bench(spec, tmp_path / "results")
    process = start(command, tmp_path / "log", before=wait_in_the_second_epoch)
    running = tmp_path / "results" / store.RUNNING / "small" / "toy" / "m"
    while not (running / "seed0" / "last.ckpt").exists():
        time.sleep(0.01)
    assert process.pid is not None
    os.kill(process.pid, which)
    assert ended(process) == 1
    printed = (tmp_path / "log").read_text()
    assert (
        "interrupted; the same command resumes and keeps every finished epoch" in printed and "Traceback" not in printed
    )
    assert [path.name for path in running.iterdir()] == ["seed0"]  # no lease is left
    moved = tmp_path / "moved" if which == signal.SIGTERM else tmp_path / "results"
    os.rename(tmp_path / "results", moved)
    assert ended(start([str(spec), str(moved)], tmp_path / "log")) == 0
    assert "epoch 1/3" not in (tmp_path / "log").read_text().removeprefix(printed)
    assert content(moved) == whole


@pytest.mark.parametrize("place", ["here", "beside", "there", ""])
def test_a_checkpoint_that_was_moved_is_still_the_best(place: str, tmp_path: Path) -> None:
    """A run resumes in its own folder, or in another, into which it takes the best checkpoint."""
    best, score = tmp_path / "there" / "best.ckpt", torch.tensor(0.7)
    state = {
        "dirpath": str(best.parent),
        "best_model_path": str(best),
        "best_model_score": score,
        "kth_best_model_path": str(best),
        "kth_value": score,
        "best_k_models": {str(best): score},
        "last_model_path": "",
    }
    found = tmp_path / (place or "there") / "best.ckpt"
    if place:
        found.parent.mkdir()
        if place == "beside":
            best_of_another = tmp_path / "here" / "best.ckpt"
            best_of_another.parent.mkdir()
            best_of_another.write_text("the best of another run")
        found.write_text("the best")
    checkpoint = Checkpoint(str(tmp_path / "here"), monitor="m", mode="max")
    alone = SimpleNamespace(broadcast=lambda path: path)
    trainer = SimpleNamespace(ckpt_path=str(tmp_path / "beside" / "last.ckpt"), strategy=alone, is_global_zero=True)
    checkpoint.setup(trainer, None, "fit")  # type: ignore[arg-type]
    checkpoint.load_state_dict(state)
    checkpoint.on_fit_start(trainer, None)  # type: ignore[arg-type]
    here = tmp_path / ("here" if place else "there") / "best.ckpt"
    assert checkpoint.best_model_path == str(here)
    assert checkpoint.best_model_score == (score if place else None)
    assert checkpoint.best_k_models == ({str(here): score} if place else {})
    assert {path.read_text() for path in (found, here) if place} == ({"the best"} if place else set())


def test_what_an_earlier_replacement_has_left_does_not_keep_a_cell_from_its_place(tmp_path: Path) -> None:
    for name in ("finished", "place", "finished.old"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "which").write_text(name)
    store.commit(tmp_path / "finished", tmp_path / "place")
    assert [path.name for path in tmp_path.iterdir()] == ["place"]
    assert (tmp_path / "place" / "which").read_text() == "finished"


def test_a_benchmark_without_any_result_says_only_what_failed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    there = tmp_path / "there"
    there.touch()
    spec = write(tmp_path, "bad", epochs=2, bad={"while_there": str(there), "how": "nan"})
    assert main(bench(spec, tmp_path / "results")) == 1
    assert "\nFAILED bad on toy, seed 0: Diverged" in capsys.readouterr().err


def test_a_run_that_another_process_takes_over_is_logged_no_further(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lose(*arguments: Any) -> None:
        raise Lost("taken")

    abandoned: list[bool] = []
    monkeypatch.setattr(cell, "train_and_test", lose)
    monkeypatch.setattr(tracker, "abandon", lambda: abandoned.append(True))
    planner, request = Planner(), Request(tmp_path / "results")
    [planned] = planner.plan(load_cells(write(tmp_path, "m")), request, check_devices=False)
    with pytest.raises(Lost):
        runner._run_cell(planned, planner, request, Lease.__new__(Lease))
    assert abandoned == [True]


@pytest.mark.parametrize("where", ["train", "watched_test", "explanations", "parameters"])
def test_who_was_asleep_writes_nothing_into_a_cell_of_another(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another machine takes over while this one sleeps; what then fails here is no failure of the cell."""
    spec, results = write(tmp_path, "m", epochs=1), tmp_path / "results"
    module: Any = cell.cost if where == "parameters" else cell
    real, folder = getattr(module, where), results / store.RUNNING / "small" / "toy" / "m"
    left: list[set[str]] = []

    def asleep(*arguments: Any, **options: Any) -> Any:
        if left:
            return real(*arguments, **options)
        done = real(*arguments, **options)
        (folder / "seed0.lease2").touch()
        left.append({path.name for path in (folder / "seed0").iterdir()})
        if where == "train":
            raise FileNotFoundError("last.ckpt")
        return done

    def poll(seconds: float) -> None:
        left.append({path.name for path in (folder / "seed0").iterdir()})
        (folder / "seed0.lease2").unlink()  # it is done

    monkeypatch.setattr(module, where, asleep)
    monkeypatch.setattr(runner.time, "sleep", poll)
    assert not runner.run(spec, results)
    assert left[0] == left[1] and store.RESULT not in left[0]


def test_a_full_disk_is_no_failure_of_the_cell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "/elsewhere/vectors.npy")

    spec, results = write(tmp_path, "m", epochs=1), tmp_path / "results"
    with monkeypatch.context() as patch:
        patch.setattr(cell, "train_and_test", full)
        assert main(bench(spec, results)) == 1
    assert not list(results.rglob(running.FAILURE)) and not list(results.rglob("*.lease*"))


@pytest.mark.parametrize("first", [True, False])
def test_a_full_disk_on_several_devices_is_no_failure_of_the_cell(
    first: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The disk of one of two processes is full; the other fails as a consequence."""
    full = OSError(errno.ENOSPC, "No space left on device", "/elsewhere/vectors.npy")

    class Processes:
        def __init__(self, arguments: list[str]) -> None:
            self.arguments = arguments

        def rank(self, error: Exception) -> None:
            def fail(*arguments: Any) -> None:
                raise error

            monkeypatch.setattr(worker, "train_and_test", fail)
            values = json.loads(self.arguments[1])
            del values["verbosity"]
            assert worker.rank(values) == 1

        def wait(self, check: Any) -> int:
            monkeypatch.setattr(worker.time, "sleep", lambda seconds: None if first else self.rank(full))
            for error in [full] * first + [RuntimeError("the connection was closed")]:
                self.rank(error)
            return 1

        def kill(self) -> None:
            pass

    monkeypatch.setattr(worker, "end_with_parent", lambda: None)
    monkeypatch.setattr(runner.processes, "Child", Processes)
    spec, results = write(tmp_path, "m", epochs=1), tmp_path / "results"
    spec.write_text(spec.read_text().replace("accelerator: cpu", "accelerator: cpu\n    devices: 2"))
    assert main(bench(spec, results)) == 1
    error = capsys.readouterr().err
    assert "/elsewhere/vectors.npy" in error and "seed0: a disk is full; check the path" in error.splitlines()[-1]
    assert not list(results.rglob(running.FAILURE)) and not list(results.rglob("*.lease*"))


@pytest.mark.parametrize("child", [False, True])
def test_a_runner_that_nobody_waits_for_says_what_is_wrong_with_a_disk(
    child: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(worker, "end_with_parent", lambda: None)
    options = {"runners": 1, "plan": str(tmp_path / "gone.json"), "results": str(tmp_path)}
    assert worker.share(worker.runner, options, child) == 1
    assert ("gone.json" in capsys.readouterr().err) == (not child)


class Unheard:
    """Is interrupted as Python takes it apart, where it drops the exception."""

    def __del__(self) -> None:
        signal.raise_signal(signal.SIGINT)


@pytest.fixture
def heard() -> Iterator[None]:
    """Ctrl-C is not ignored, as it is where the tests run in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.usefixtures("heard")
@pytest.mark.parametrize("where", ["plan", "training", "between cells", "end"])
def test_an_interruption_is_never_swallowed(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    spec, results = write(tmp_path, "a", "b", epochs=2), tmp_path / "results"
    module, name = {
        "plan": (Planner, "plan"),
        "training": (EpochLines, "on_validation_end"),
        "between cells": (runner, "free_memory"),
        "end": (runner, "free_memory"),
    }[where]
    real, calls = getattr(module, name), list[str]()

    def interrupted(*arguments: Any, **options: Any) -> Any:
        calls.append(name)
        if len(calls) == (2 if where == "end" else 1):
            Unheard()
        return real(*arguments, **options)

    monkeypatch.setattr(module, name, interrupted)
    assert main(bench(spec, results)) == 1
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("itmbench: ")]
    assert said == ["itmbench: interrupted; the same command resumes and keeps every finished epoch"]
    finished = {"plan": 0, "training": 0, "between cells": 1, "end": 2}[where]
    assert len(list(store.results(results)) if results.exists() else []) == finished


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.usefixtures("heard")
def test_an_interruption_that_a_package_turns_into_an_error_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def plan(*arguments: Any, **options: Any) -> None:
        Unheard()
        raise ImportError("half a package")

    monkeypatch.setattr(Planner, "plan", plan)
    assert main(bench(write(tmp_path, "a"), tmp_path / "results")) == 1
    error = capsys.readouterr().err
    assert "itmbench: interrupted" in error and "half a package" not in error


def test_a_scheduler_that_ends_all_processes_at_once_interrupts_and_fails_nothing(tmp_path: Path) -> None:
    spec = write(tmp_path, "m", num_workers=1, epochs=30)
    process = start(bench(spec, tmp_path / "results"), tmp_path / "log", before=os.setsid)
    running = tmp_path / "results" / store.RUNNING / "small" / "toy" / "m"
    while not (running / "seed0" / "last.ckpt").exists():
        time.sleep(0.01)
    assert process.pid is not None
    os.killpg(process.pid, signal.SIGTERM)
    assert ended(process) == 1
    printed = (tmp_path / "log").read_text()
    assert "interrupted; the same command resumes" in printed and "failed" not in printed and "FAILED" not in printed
    assert not (running / "seed0" / "failure.json").exists()


def test_runners_share_the_cells_and_take_over_those_of_the_dead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "POLL", 0.05)
    spec = write(tmp_path, "a", "b", seeds=(0, 1), epochs=1)
    command = [str(spec), str(tmp_path / "results")]
    first = start(command, tmp_path / "log0")
    while not list((tmp_path / "results").rglob("config.yaml")):
        time.sleep(0.01)
    others = [start(command, tmp_path / f"log{n}") for n in (1, 2)]
    time.sleep(0.2)
    first.kill()
    assert [ended(other) for other in others] == [0, 0]
    logs = [(tmp_path / f"log{n}").read_text() for n in (1, 2)]
    cells = [f"{method} on toy, seed {seed}" for method in "ab" for seed in (0, 1)]
    # A cell that is run is followed by the lines of its epochs.
    ran = [[log.count(f"{cell}: running\n") for log in logs] for cell in cells]
    assert sum(map(sum, ran)) <= 4 and all(sum(each) <= 1 for each in ran)
    assert sum(map(sum, ran)) >= 3  # the first may have finished one
    assert all(sum(each) for each in zip(*ran, strict=True))  # both took part
    assert len(list(store.results(tmp_path / "results"))) == 4
    assert not unfinished(tmp_path / "results")


def test_what_fails_is_told_and_tried_again_when_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    there = tmp_path / "there"
    there.touch()
    failing: dict[str, Any] = {how: {"while_there": str(there), "how": how} for how in ("nan", "inf", "memory")}
    spec = write(tmp_path, "nan", "good", "inf", "memory", epochs=2, **failing)
    results = tmp_path / "results"
    assert list(map(str, runner.run(spec, results))) == [f"{how} on toy, seed 0" for how in failing]
    said = capsys.readouterr()
    running = results / store.RUNNING / "small" / "toy"
    assert "Diverged: the training loss is nan in step 1 of epoch 2, at a learning rate of 0.0" in said.err
    assert "Diverged: the training loss is inf in step 1 of epoch 2" in said.err
    assert [line.partition(":")[0] for line in said.err.splitlines() if "FAILED" in line] == [
        f"FAILED {how} on toy, seed 0" for how in failing
    ]
    assert said.err.count("lower model.lr") == 2 and "halve data.batch_size" in said.err
    assert "epoch 1/2" in (running / "nan" / "seed0" / "log.txt").read_text()
    assert "OutOfMemoryError: tried" in (running / "memory" / "seed0" / "error.txt").read_text()
    assert [result.method for _, result in store.results(results)] == ["good"]

    there.unlink()
    assert len(runner.run(spec, results)) == 3  # not tried again
    again = capsys.readouterr()
    assert again.err.count("failed before: Diverged") == 2 and again.err.count("FAILED") == 3
    assert main(bench(spec, results, "--dry-run")) == 0
    listed = capsys.readouterr().out
    assert listed.count("failed before (") == 3 and listed.count("done before") == 1 and "0 of 4 cells left" in listed

    assert main(bench(spec, results, "--retry-failed", "--dry-run")) == 0
    assert capsys.readouterr().out.count("resumes after epoch 1 of 2, about ") == 3
    assert not runner.run(spec, results, retry_failed=True)
    retried = capsys.readouterr().err
    assert retried.count("epoch 2/2") == 3 and "epoch 1/2" not in retried and retried.count("done before") == 1
    assert len(list(store.results(results))) == 4

    finished = {result.method: result.finished for _, result in store.results(results)}
    assert main(bench(spec, results, "--force", "--dry-run")) == 0
    assert capsys.readouterr().out.count("to run, about ") == 4
    assert not runner.run(spec, results, "method=good", force=True)
    assert "epoch 1/2" in capsys.readouterr().err
    forced = {result.method: result.finished for _, result in store.results(results)}
    assert [method for method in forced if forced[method] != finished[method]] == ["good"]
    there.touch()
    assert len(runner.run(spec, results, "method=nan", force=True)) == 1  # a result of before is no success
    assert len(list(store.results(results))) == 4


def test_no_model_of_a_cell_is_kept_for_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = tmp_path / "there"
    there.touch()
    spec = write(tmp_path, "a", "bad", "b", epochs=2, bad={"while_there": str(there), "how": "nan"})

    def matchers() -> set[int]:
        return {id(each) for each in gc.get_objects() if issubclass(type(each), Matcher)}

    before = matchers()
    free, kept = runner.free_memory, []

    def count() -> None:
        free()
        kept.append(len(matchers() - before))

    monkeypatch.setattr(runner, "free_memory", count)
    assert len(runner.run(spec, tmp_path / "results")) == 1
    assert kept == [0, 0, 0]


def test_pairs_that_cannot_be_are_told_together_before_anything_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = write(tmp_path, "good", "labels", "features", "shallow", "unknown", "folds", "cutoffs", "normaliser")
    tiny = {"image": TOY_MODEL["init_args"]["image"], "text": TOY_MODEL["init_args"]["text"]}
    for name, model in {
        "labels": {"class_path": "DCMH", "init_args": tiny},
        "features": {"class_path": "VSE", "init_args": tiny | {"image": {"class_path": "FeatureEncoder"}}},
        "shallow": {"class_path": "MCRDGN", "init_args": tiny | {"k": 0}},
        "unknown": {"class_path": "DualEncoder", "init_args": tiny | {"loss": {"class_path": "NoLoss"}}},
        "folds": {"class_path": "DualEncoder", "init_args": tiny | {"protocol": {"folds": 1000}}},
        "cutoffs": {"class_path": "DualEncoder", "init_args": tiny | {"protocol": {"cutoffs": [0]}}},
        "normaliser": {"class_path": "DualEncoder", "init_args": tiny | {"protocol": {"normaliser": "dcmh"}}},
    }.items():
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump({"model": model}))
    assert main(bench(spec, tmp_path / "results", "--dry-run")) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("itmbench: ")]
    assert len(lines) == 7 and not (tmp_path / "results").exists()
    assert "labels on toy: toy: has no labels, and DCMH needs labels" in lines[0]
    assert "features on toy: FeatureEncoder reads ready-made features" in lines[1]
    assert "shallow on toy: MCRDGN: k is 0" in lines[2]
    assert "unknown on toy: " in lines[3] and "NoLoss" in lines[3]
    assert "folds on toy: folds: 1000 folds of " in lines[4] and lines[4].endswith("test images; give fewer")
    assert "cutoffs on toy: cutoff: 0; give a whole number of at least 1" in lines[5]
    assert "normaliser on toy: model.protocol.normaliser: expected Literal['retrieved'" in lines[6]
