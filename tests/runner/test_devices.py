"""Many devices: cells that train on several, cells side by side on one each, and what cannot be."""

import os
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from own_features import write_features
from small_benchmark import content, ended, start, unfinished, write

from itmbench import store
from itmbench.cli.main import main
from itmbench.errors import InputError
from itmbench.runner import running, worker
from itmbench.runner.plan import Planned
from itmbench.runner.processes import device_variables, run_side_by_side
from itmbench.runner.spec import load_cells


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs that are started find the methods of these tests."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]), prepend=os.pathsep)


def changed(spec: Path, **trainer: Any) -> Path:
    """The benchmark with other options of the trainer."""
    content = yaml.safe_load(spec.read_text())
    content["config"]["trainer"] |= trainer
    spec.write_text(yaml.safe_dump(content, sort_keys=False))
    return spec


def plainly(spec: Path, batch_size: int) -> Path:
    """The benchmark without anything that each device draws for itself."""
    for path in spec.parent.glob("*.yaml"):
        config = yaml.safe_load(path.read_text())
        if "model" in config:
            config["model"]["init_args"]["image"]["init_args"]["train_crop"] = 1.0
            config["model"]["init_args"]["text"]["init_args"]["dropout"] = 0.0
        if "data" in config:
            config["data"]["init_args"]["batch_size"] = batch_size
        path.write_text(yaml.safe_dump(config, sort_keys=False))
    return spec


def results(root: Path) -> dict[str, store.Result]:
    return {f"{result.method} {result.seed}": result for _, result in store.results(root)}


def weights(folder: Path) -> torch.Tensor:
    state = torch.load(folder / store.CHECKPOINT, weights_only=True)["state_dict"]
    return torch.cat([value.flatten().float() for value in state.values()])


def test_a_cell_on_two_devices_is_one_cell_that_trains_with_the_batch_of_both(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    there = tmp_path / "there"
    there.touch()
    failing = {"while_there": str(there), "how": "nan"}
    one = plainly(write(tmp_path / "one", "m", seeds=(0, 1), epochs=2), batch_size=16)
    two = plainly(write(tmp_path / "two", "m", "bad", seeds=(0, 1), epochs=2, bad=failing), batch_size=8)
    changed(two, devices=2)
    assert main(["bench", str(one), "--results", str(tmp_path / "one" / "results")]) == 0
    capsys.readouterr()
    assert main(["bench", str(two), "--results", str(tmp_path / "two" / "results"), "--only=seed=0"]) == 1
    said = capsys.readouterr()
    assert "FAILED bad on toy, seed 0: Diverged: the training loss is nan" in said.err
    assert "lower model.lr" in said.err and said.err.count("epoch 1/2") == 2 and said.err.count("done before") == 0
    alone, both = results(tmp_path / "one" / "results"), results(tmp_path / "two" / "results")
    assert list(both) == ["m 0"] and both["m 0"].hardware["devices"] == 2 and alone["m 0"].hardware["devices"] == 1
    assert both["m 0"].key != alone["m 0"].key

    folders = [tmp_path / name / "results" / "small" / "toy" / "m" / "seed0" for name in ("one", "two")]
    begun = weights(folders[0].with_name("seed1"))
    apart, moved = [(weights(folders[0]) - each).norm() for each in (weights(folders[1]), begun)]
    assert apart < 0.02 * moved
    assert both["m 0"].validation == pytest.approx(alone["m 0"].validation, rel=0.05)
    assert {path.name for path in folders[1].iterdir()} == {path.name for path in folders[0].iterdir()}
    assert "epoch 2/2" in (folders[1] / "log.txt").read_text()
    assert (
        yaml.safe_load((folders[0] / "config.yaml").read_text())["trainer"]["devices"] == 1
    )  # not as many as there are


def test_a_cell_on_two_devices_that_is_ended_goes_on_and_has_no_result_before_its_end(tmp_path: Path) -> None:
    spec = changed(write(tmp_path, "m", epochs=15, num_workers=1), devices=2)
    command = ["bench", str(spec), "--results", str(tmp_path / "results")]
    log = tmp_path / "log"
    running = tmp_path / "results" / store.RUNNING / "small" / "toy" / "m" / "seed0"
    for how in ("interrupted", "killed", "ranks"):
        last = running / "last.ckpt"
        before = last.stat().st_mtime_ns if last.exists() else 0
        runner = start(command, log)
        while not last.exists() or last.stat().st_mtime_ns == before:
            assert runner.is_alive(), log.read_text()
            time.sleep(0.05)
        assert len(processes(str(tmp_path))) == 2 and runner.pid is not None  # no loaders: a fork might hang
        if how == "ranks":  # by somebody who knows nothing of the runner; the first ends the second
            os.kill(min(processes(str(tmp_path))), signal.SIGTERM)
            assert ended(runner) == 1 and "FAILED m on toy, seed 0: RuntimeError: " in log.read_text()
        elif how == "killed":
            os.kill(runner.pid, signal.SIGKILL)
            assert ended(runner) == -signal.SIGKILL
        else:
            os.kill(runner.pid, signal.SIGTERM)
            assert ended(runner) == 1 and "failed" not in log.read_text()
        until = time.monotonic() + 30
        while processes(str(tmp_path)) and time.monotonic() < until:
            time.sleep(0.1)
        assert not processes(str(tmp_path)) and not list((tmp_path / "results").glob("small/**/result.json"))
        assert (running / "failure.json").exists() == (how == "ranks")
    reached = 1 + torch.load(last, weights_only=True)["epoch"]
    log.unlink()
    assert ended(start([*command, "--retry-failed"], log)) == 0
    said = log.read_text()
    assert f"epoch {reached}/15" not in said and f"epoch {reached + 1}/15" in said and "epoch 15/15" in said
    assert not unfinished(tmp_path / "results")


def test_a_process_that_finds_other_code_than_the_plan_did_runs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = load_cells(write(tmp_path, "m"))[0]
    folder = tmp_path / "cell"
    monkeypatch.setattr(worker, "end_with_parent", lambda: None)
    monkeypatch.setattr(worker.lease, "shared", lambda folder: None)
    monkeypatch.setattr(worker, "POLL", 0.0)
    planned = Planned(cell, "another key", devices=2, loaders=0)
    assert worker.rank({"folder": str(folder), **asdict(planned)}) == 1
    failed = running.recorded_failure(folder, "another key")
    assert failed is not None and "have changed since this benchmark began" in failed.error


def processes(mark: str) -> list[int]:
    """Processes that have the mark in their arguments."""
    found = []
    for each in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            arguments = each.read_bytes().decode(errors="replace").split("\0")
        except OSError:  # it has ended
            continue
        if any(mark in argument for argument in arguments):
            found.append(int(each.parent.name))
    return found


def test_cells_side_by_side_leave_what_one_after_another_leave(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    there = tmp_path / "there"
    there.touch()
    spec = write(tmp_path, "a", "bad", "b", seeds=(0, 1), epochs=2, bad={"while_there": str(there), "how": "inf"})
    command = ["bench", str(spec), "--results"]
    assert main([*command, str(tmp_path / "serial")]) == 1
    alone = capsys.readouterr()
    assert main([*command, str(tmp_path / "beside"), "--devices", "2"]) == 1
    said = capsys.readouterr()
    qualities, _, costs = said.out.partition("method steps")
    assert costs and qualities == alone.out.partition("method steps")[0]
    assert [line.partition(":")[0] for line in said.err.splitlines() if "FAILED" in line] == [
        f"FAILED bad on toy, seed {seed}" for seed in (0, 1)
    ]
    lines = said.err.splitlines()
    ran = [[line for line in lines if line.startswith(f"{number} | [")] for number in (0, 1)]
    assert (
        len(ran[0] + ran[1]) == 6 and "index.html" in said.out.splitlines()[-1]
    )  # one may be done before the other has begun
    beside = content(tmp_path / "beside")
    assert len(beside) == 4 and beside == content(tmp_path / "serial")

    there.unlink()
    assert main([*command, str(tmp_path / "beside"), "--devices", "2", "--retry-failed"]) == 0
    assert len(content(tmp_path / "beside")) == 6
    capsys.readouterr()
    assert main([*command, str(tmp_path / "beside"), "--devices", "2"]) == 0
    assert capsys.readouterr().err.count("done before") == 6


def test_slurm_is_given_an_array_of_runners(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    monkeypatch.setenv("PATH", str(programs), prepend=os.pathsep)
    spec = write(tmp_path, "a", "b", epochs=1)
    folder = tmp_path / "my results"
    command = ["bench", str(spec), "--results", str(folder), "--launcher", "slurm", "--devices", "8"]
    (programs / "sbatch").write_text(
        f"#!/bin/sh\nprintf '%s\\n' \"$@\" > {tmp_path}/sbatch\ncat > {tmp_path}/job.sh\necho '17;cluster'\n"
    )
    (programs / "sbatch").chmod(0o755)
    assert main(command) == 0
    assert "job 17: 2 runners for 2 cells" in capsys.readouterr().err
    job, sbatch = (tmp_path / "job.sh").read_text(), (tmp_path / "sbatch").read_text().splitlines()
    assert "--array=0-1" in sbatch and "gpus" not in job and "--cpus-per-task=1\n" in job
    assert f"--output={folder}/.running/slurm-%A-%a.txt" in sbatch
    assert subprocess.run(["bash", str(tmp_path / "job.sh")], capture_output=True).returncode == 0
    assert len(content(folder)) == 2
    assert main(command) == 0  # nothing is left to submit
    assert capsys.readouterr().err.count("done before") == 2

    changed(spec, accelerator="gpu", devices=2)
    assert main([*command, "--only=method=a"]) == 0
    capsys.readouterr()
    job, sbatch = (tmp_path / "job.sh").read_text(), (tmp_path / "sbatch").read_text().splitlines()
    assert "--cpus-per-task=2 --gpus-per-task=2\n" in job and "--array=0-0" in sbatch

    (programs / "sbatch").write_text("#!/bin/sh\necho 'error: invalid account' >&2\nexit 1\n")
    assert main(command) == 2
    assert capsys.readouterr().err == "itmbench: --launcher slurm: error: invalid account\n"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(command) == 2
    assert "cannot call sbatch here" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("trainer", "options", "said"),
    [
        ({"num_nodes": 2}, [], "trainer.num_nodes: a cell trains on one machine"),
        ({"devices": -1}, [], "trainer.devices -1: differs from machine to machine"),
        ({"devices": 2, "strategy": "ddp_spawn"}, [], "trainer.strategy ddp_spawn: cannot return results; use ddp"),
        (
            {"devices": 2},
            ["--devices=2"],
            "gives each cell one device, but m on toy, seed 0 has trainer.devices 2",
        ),
        ({"devices": [3]}, [], "trainer: `devices` selected with `CPUAccelerator` should be an int > 0"),
        ({"devices": 8}, [], "32 training pairs do not fill one batch on each of 8 devices; set data.batch_size"),
        ({}, ["--devices=0"], "--devices 0: give 1 or more"),
        ({"accelerator": "gpu"}, [], "trainer: No supported gpu backend found!"),
    ],
)
def test_devices_that_cannot_be_are_told_before_anything_runs(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    trainer: dict[str, Any],
    options: list[str],
    said: str,
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    spec = changed(write(tmp_path, "m"), **trainer)
    assert main(["bench", str(spec), "--results", str(tmp_path / "results"), *options]) == 2
    error = capsys.readouterr().err
    assert said in error and error.startswith("itmbench: ") and error.count("\n") == 1
    assert not (tmp_path / "results").exists()


def test_a_gpu_each_or_none(monkeypatch: pytest.MonkeyPatch) -> None:

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert device_variables(2, 4) == [{"CUDA_VISIBLE_DEVICES": "0"}, {"CUDA_VISIBLE_DEVICES": "1"}]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,GPU-7")
    assert device_variables(2, 2) == [{"CUDA_VISIBLE_DEVICES": "5"}, {"CUDA_VISIBLE_DEVICES": "GPU-7"}]
    assert device_variables(2, 0) == [{}] * 2
    with pytest.raises(InputError, match="--devices 3: this machine has 2 GPUs"):
        run_side_by_side([], 3, 2)


def test_torchrun_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert main(["bench", str(write(tmp_path, "m"))]) == 2
    assert "call it without torchrun" in capsys.readouterr().err


def test_the_command_line_trains_and_tests_on_two_devices(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    spec = write(tmp_path, "m")
    options = "--trainer.devices 2 --trainer.accelerator cpu --trainer.max_epochs 1 --trainer.enable_progress_bar false"
    command = f"-m itmbench fit --config {spec.parent}/data.yaml --config {spec.parent}/m.yaml {options}"
    fit = run(command, tmp_path)
    assert fit.returncode == 0, fit.stderr
    assert "sync_dist" not in fit.stderr and "Traceback" not in fit.stderr
    test = fit.stdout.strip().splitlines()[-1].strip()
    assert test == f"itmbench test {tmp_path / 'lightning_logs/version_0'}"
    tested = run(f"-m {test}", tmp_path)
    assert tested.returncode == 0, tested.stderr
    assert tested.stdout.count("rSum") == 1 and "rSum  " in tested.stdout
    assert main([*shlex.split(test)[1:], "--trainer.devices", "1"]) == 0
    both, alone = (
        [line for line in said.splitlines() if "/" in line] for said in (tested.stdout, capsys.readouterr().out)
    )
    assert len(both) > 10 and both == alone


def test_devices_with_unequally_many_items_predict_what_one_predicts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    features = write_features(tmp_path / "features", labels=False, items=33)
    configs = Path(__file__).parents[2] / "benchmarks" / "configs"
    given = " ".join(f"--config {configs}/{name}.yaml" for name in ("data/feature_folder", "encoders/features"))
    given += f" --config {configs}/methods/dual_infonce.yaml --data.root {features} --data.batch_size 4"
    given += " --trainer.accelerator cpu --trainer.enable_progress_bar false"
    assert main(shlex.split(f"fit {given} --trainer.max_epochs 1 --trainer.devices 1")) == 0
    predict = f"predict {given} --ckpt_path {next(tmp_path.rglob('best.ckpt'))}"
    assert main(shlex.split(f"{predict} --trainer.devices 1 --embeddings.folder {tmp_path}/1")) == 0
    done = run(f"-m itmbench {predict} --trainer.devices 2 --embeddings.folder {tmp_path}/2", tmp_path)
    assert done.returncode == 0, done.stderr
    for name in ("images", "texts"):
        one, two = (np.load(tmp_path / str(devices) / f"{name}.npy") for devices in (1, 2))
        assert one.shape[0] == 11 and np.allclose(one, two, atol=1e-6)


def test_what_is_wrong_on_all_devices_is_said_once(tmp_path: Path) -> None:
    spec = write(tmp_path, "m")
    options = "--model DCMH --trainer.devices 2 --trainer.accelerator cpu --trainer.logger false"
    fit = run(f"-m itmbench fit --config {spec.parent}/data.yaml --config {spec.parent}/m.yaml {options}", tmp_path)
    lines = [line for line in fit.stderr.splitlines() if line.startswith("itmbench: ")]
    assert fit.returncode == 2 and len(lines) == 1 and "labels" in lines[0]


def run(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *shlex.split(command)], cwd=folder, capture_output=True, text=True)
