"""What may lie in the way of a benchmark: files, leases, pages and clocks that are not as they should be."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from refusal import refusal
from small_benchmark import bench, content, write
from toy import toy_arguments, toy_corpus

from itmbench import store
from itmbench.cli.main import main
from itmbench.files import locked
from itmbench.runner import cell, lease, running

CELL = Path("small", "toy", "m", "seed0")
YEAR = 365 * 24 * 3600


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("benchmark"), "m", epochs=1)


@pytest.fixture(scope="module")
def done(spec: Path) -> Path:
    """The results of the benchmark."""
    assert main(bench(spec, spec.parent / "results")) == 0
    return spec.parent / "results"


def loop(path: Path) -> None:
    path.symlink_to(path.name)


IN_THE_WAY: dict[str, tuple[Path, Callable[[Path], Any]]] = {
    "a file for the cell": (CELL, Path.touch),
    "a file for the dataset": (CELL.parent.parent, Path.touch),
    "a loop of links for the cell": (CELL, loop),
    "a file for running cells": (Path(store.RUNNING), Path.touch),
    "a file for the running cell": (store.RUNNING / CELL, Path.touch),
}


@pytest.mark.parametrize("case", IN_THE_WAY)
def test_files_where_results_belong(case: str, spec: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place, make = IN_THE_WAY[case]
    (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
    make(tmp_path / place)
    line = refusal(bench(spec, tmp_path), capsys, tmp_path)
    assert f"DIR/{place}: is a file where results of m on toy, seed 0 belong; move it away" in line


PLACES: dict[str, Callable[[Path], Path]] = {
    "of 5,000 letters": lambda folder: folder / ("x" * 5000),
    "with a name of 300 letters": lambda folder: folder / ("x" * 300),
    "in /proc": lambda folder: Path("/proc/x"),
    "below a file": lambda folder: Path(__file__, "results"),
    "a file": lambda folder: Path(__file__),
}


@pytest.mark.parametrize("case", PLACES)
def test_folders_for_results(case: str, spec: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refusal(bench(spec, PLACES[case](tmp_path)), capsys, tmp_path)


def test_a_folder_for_results_that_is_a_loop(spec: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    loop(tmp_path / "results")
    assert "DIR/results: " in refusal(bench(spec, tmp_path / "results"), capsys, tmp_path)


@pytest.mark.parametrize("command", ["bench", "report", "results list"])
def test_a_folder_whose_name_is_no_text(
    command: str, spec: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / os.fsdecode(b"\xff\xfe")
    results.mkdir()
    words = [*command.split(), str(spec)] if command == "bench" else command.split()
    assert "DIR/\\udcff\\udcfe: is not UTF-8" in refusal([*words, f"--results={results}"], capsys, tmp_path)


@pytest.mark.parametrize("name", ["-m", "a,b", "m\n", "m ", " m", "e\u0301", "\u8a9e" * 100, "\u212b"])
def test_names_that_look_like_others(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = write(tmp_path, "m")
    spec.write_text(json.dumps({"datasets": {"toy": "data.yaml"}, "methods": {name: "m.yaml"}}))
    assert "methods." in refusal(bench(spec, tmp_path / "results"), capsys, tmp_path)


@pytest.mark.parametrize("kind", ["datasets", "methods"])
def test_names_that_are_one_on_some_disks(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = write(tmp_path, "m")
    names = {"datasets": {"toy": "data.yaml"}, "methods": {"m": "m.yaml"}} | {kind: {"Maß": "m.yaml", "MASS": "m.yaml"}}
    spec.write_text(json.dumps(names))
    assert f"{kind}: Maß and MASS differ only in case" in refusal(bench(spec, tmp_path / "results"), capsys, tmp_path)


def test_results_behind_a_link_are_done(spec: Path, done: Path, tmp_path: Path) -> None:
    (tmp_path / "results").symlink_to(done)
    assert main(bench(spec, tmp_path / "results")) == 0 and content(tmp_path / "results") == content(done)


def test_a_folder_with_a_newline(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = refusal(["report", f"--results={tmp_path}/one\ntwo"], capsys, tmp_path)
    assert line.startswith("DIR/one\\ntwo: no such results folder")


PAGES: dict[str, Callable[[Path], Any]] = {
    "somebody's own": lambda path: path.write_text("<title>My home</title>"),
    "bytes": lambda path: path.write_bytes(bytes(range(256))),
    "empty": Path.touch,
    "a folder": Path.mkdir,
    "a loop of links": loop,
}


@pytest.mark.parametrize("case", PAGES)
def test_a_page_of_somebody_else_stays(
    case: str, spec: Path, done: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = Path(shutil.copytree(done, tmp_path / "results"))
    page = results / "index.html"
    page.unlink()
    PAGES[case](page)
    before = page.read_bytes() if page.is_file() else None
    assert main(bench(spec, results)) == 0
    out, err = capsys.readouterr()
    assert "rSum" in out and "As a page" not in out and f"no page: {page}: " in err
    assert (page.read_bytes() if page.is_file() else None) == before


def test_a_page_of_results_is_written_anew(spec: Path, done: Path, tmp_path: Path) -> None:
    results = Path(shutil.copytree(done, tmp_path / "results"))
    page = (results / "index.html").read_text()
    (results / "index.html").write_text(page[:2000])
    assert main(bench(spec, results)) == 0
    assert (results / "index.html").read_text() == page


def test_a_result_from_the_future_runs_again_when_asked(spec: Path, done: Path, tmp_path: Path) -> None:
    results = Path(shutil.copytree(done, tmp_path / "results"))
    file = results / CELL / store.RESULT
    wrong = json.loads(file.read_text()) | {"finished": "2099-01-01T00:00:00.000000+00:00"}
    file.write_text(json.dumps(wrong))
    assert main(bench(spec, results)) == 0 and store.Result.load(file.parent).finished.startswith("2099")
    assert main(bench(spec, results, "--force")) == 0 and not store.Result.load(file.parent).finished.startswith("2099")
    assert content(results) == content(done)


def test_a_checkpoint_that_was_cut_short_is_not_resumed_from(spec: Path, done: Path, tmp_path: Path) -> None:
    folder = tmp_path / store.RUNNING / CELL
    folder.mkdir(parents=True)
    (folder / running.KEY).write_text(store.Result.load(done / CELL).key)
    (folder / running.LAST).write_bytes((done / CELL / store.CHECKPOINT).read_bytes()[:5000])
    assert main(bench(spec, tmp_path, "--dry-run")) == 0
    assert main(bench(spec, tmp_path)) == 0 and content(tmp_path) == content(done)


@pytest.mark.parametrize("gone", [store.RUNNING, f"{store.RUNNING}/{CELL.parent}", f"{store.RUNNING}/{CELL}.lease1"])
def test_a_folder_that_is_removed_while_its_cell_runs(
    gone: str, spec: Path, done: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results, real, calls = tmp_path / "results", cell.train_and_test, list[str]()

    def train_and_test(*arguments: Any) -> None:
        real(*arguments)
        calls.append("")
        if len(calls) == 1:
            path = results / gone
            path.unlink() if path.is_file() else shutil.rmtree(path)

    monkeypatch.setattr(cell, "train_and_test", train_and_test)
    assert main(bench(spec, results)) == 0
    assert content(results) == content(done)


@pytest.mark.parametrize("name", [store.CONFIG, store.PER_QUERY, store.CHECKPOINT, store.RESULT])
def test_a_file_that_is_removed_while_its_cell_runs(
    name: str, spec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    results, real = tmp_path / "results", cell.train_and_test

    def train_and_test(*arguments: Any) -> None:
        real(*arguments)
        (results / store.RUNNING / CELL / name).unlink()

    monkeypatch.setattr(cell, "train_and_test", train_and_test)
    assert main(bench(spec, results)) == 1 and not (results / CELL).exists()
    assert f"RuntimeError: {name} was removed while the cell ran" in capsys.readouterr().err


@contextmanager
def full_disk(size: int) -> Iterator[None]:
    """No file can grow beyond this many bytes."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_full_disk_that_gets_room(spec: Path, done: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = tmp_path / "results"
    with full_disk(100_000):
        assert main(bench(spec, results)) == 1
    error = capsys.readouterr().err
    assert "best.ckpt: File too large; check the path" in error.splitlines()[-1] and "Traceback" not in error
    assert not list(results.rglob("*.partial")) and not (results / CELL).exists()
    assert main(bench(spec, results)) == 0 and content(results) == content(done)


def test_a_full_disk_leaves_no_half_features(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    toy_corpus(tmp_path / "toy")
    with full_disk(1000):
        line = refusal(["predict", *toy_arguments(tmp_path, "--trainer.logger=false")], capsys, tmp_path, code=1)
    assert line.startswith("DIR/embeddings: No space left on device (1024 requested and") and {
        path.name for path in tmp_path.iterdir()
    } == {"toy"}


def test_a_terminated_training_is_interrupted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    callback = "--trainer.callbacks=toy_failures.Terminate"
    assert main(["fit", *toy_arguments(tmp_path, callback)]) == 1
    assert "itmbench: interrupted; once an epoch is finished: resume with --ckpt_path" in capsys.readouterr().err
    with locked(next(tmp_path.rglob("config.yaml")).parent, wait=False):
        pass  # it is free again


OWNERS: dict[str, bytes] = {
    "a number": b"5",
    "a list": b"[1]",
    "nothing": b"",
    "bytes": bytes(range(256)),
    "no process": json.dumps({"machine": lease._machine()}).encode(),
    "a process that is a text": json.dumps({"machine": lease._machine(), "pid": "1"}).encode(),
    "a process of 30 digits": json.dumps({"machine": lease._machine(), "pid": 10**30}).encode(),
}


@pytest.mark.parametrize("case", OWNERS)
def test_leases_that_hold(case: str, tmp_path: Path) -> None:
    folder, file = tmp_path / "seed0", tmp_path / "seed0.lease1"
    file.write_bytes(OWNERS[case])
    if case != "a process of 30 digits":  # which cannot live
        assert lease.holder(folder) is not None and lease.take(folder) is None
        os.utime(file, (0, 0))
    held = lease.take(folder)
    assert held is not None
    held.release()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["seed0.lease1~", "seed0.lease", "seed0.lease.swp", "seed0.lease-1", "seed0.lease1.5"])
def test_files_beside_leases(name: str, tmp_path: Path) -> None:
    (tmp_path / name).touch()
    held = lease.take(tmp_path / "seed0")
    assert held is not None and lease.take(tmp_path / "seed0") is None
    held.check()
    held.release()
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_lease_from_the_future_is_not_waited_for(tmp_path: Path) -> None:
    file = tmp_path / "seed0.lease1"
    file.write_text(json.dumps({"machine": "elsewhere", "host": "elsewhere", "pid": 1}))
    os.utime(file, (time.time() + YEAR, time.time() + YEAR))
    assert lease.take(tmp_path / "seed0") is not None


def test_sigterm_while_a_benchmark_is_planned_is_an_interruption(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "itmbench", "bench", "mini", "--results", str(tmp_path / "results")]
    environment = os.environ | {"ITMBENCH_CACHE": str(tmp_path)}
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        while not catches(process.pid, signal.SIGTERM):
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        assert process.stderr is not None
        last = process.stderr.read().splitlines()[-1]
    assert (process.returncode, last[:21]) == (1, "itmbench: interrupted")
    assert not (tmp_path / "results").exists()


def catches(pid: int, number: int) -> bool:
    """Whether a process has a handler for a signal."""
    status = Path("/proc", str(pid), "status").read_text()
    caught = next(line for line in status.splitlines() if line.startswith("SigCgt:"))
    return bool(int(caught.split()[1], 16) >> (number - 1) & 1)
