"""Disks that fill up and folders that turn read-only, by real small file systems where this user may mount them."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from refusal import files
from small_benchmark import FORK, bench, content, ended, unfinished, write
from toy import toy_arguments, toy_corpus

import itmbench.cli.results  # noqa: F401  which who loses the right to read Python's own files cannot import
from itmbench import store
from itmbench.cli.main import main


class Disk:
    """A small file system in memory.

    Args:
        folder: where it is mounted.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._mount("-t", "tmpfs", "-o", "size=20m", "tmpfs")

    def _mount(self, *options: str) -> None:
        subprocess.run(["mount", *options, str(self.folder)], check=True, capture_output=True)

    def has(self, room: str) -> None:
        """Leave this much room in all, or ``ro``."""
        self._mount("-o", f"remount,{room if room == 'ro' else f'rw,size={room}'}")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    (tmp_path / "disk").mkdir()
    try:
        disk = Disk(tmp_path / "disk")
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"this user mounts no file systems ({error})")
    yield disk
    subprocess.run(["umount", "-l", str(disk.folder)], check=True)


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A benchmark, with the search for an option."""
    spec = write(tmp_path_factory.mktemp("benchmark"), "m", epochs=1)
    tuned = yaml.safe_load(spec.read_text()) | {
        "tune": {"seed": 5, "shared": {"model.init_args.lr": {"low": 0.001, "high": 0.01}}}
    }
    (spec.parent / "tuned.yaml").write_text(yaml.safe_dump(tuned))
    return spec


@pytest.fixture(scope="module")
def done(spec: Path) -> Path:
    """The results of the benchmark."""
    assert main(bench(spec, spec.parent / "results")) == 0
    toy_corpus(spec.parent / "photographs")
    return spec.parent / "results"


def commands(spec: Path, done: Path, disk: Path) -> dict[str, list[str]]:
    """Commands that write on a disk."""
    model, gallery = f"--model={done / 'small/toy/m/seed0'}", f"--gallery={spec.parent / 'photographs'}"
    quiet = ("--trainer.max_epochs=1", "--trainer.logger=false")
    return {
        "bench": bench(spec, disk / "results"),
        "tune": ["tune", str(spec.parent / "tuned.yaml"), "--trials=2", f"--results={disk / 'results'}"],
        "fit": ["fit", *toy_arguments(spec.parent, *quiet, f"--trainer.default_root_dir={disk}")],
        "predict": ["predict", *toy_arguments(spec.parent, *quiet, f"--embeddings.folder={disk / 'vectors'}")],
        "search": ["search", model, gallery, "a red square"],
        "search --out": ["search", model, gallery, "a red square", f"--out={disk / 'found.png'}"],
        "report": ["report", f"--results={done}", "--format=html", f"--out={disk / 'page.html'}"],
        "results merge": ["results", "merge", str(done), f"--results={disk / 'results'}"],
        "data prepare": ["data", "prepare", "flickr30k-mini"],
    }


NAMED = {
    "search": "search/",
    "search --out": "found.png",
    "report": "page.html",
    "results merge": "results/.running/",
    "data prepare": "mini",
    "predict": "vectors",
    "fit": "config.yaml",
    "bench": "results",
    "tune": "results",
}
FULL = [(name, room) for name in NAMED for room in ("4k", "64k")]
ENOUGH = {("predict", "64k"), ("search", "64k")}


@pytest.mark.parametrize(("name", "room"), FULL)
def test_a_disk_that_fills_up(
    name: str, room: str, spec: Path, done: Path, disk: Disk, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = commands(spec, done, disk.folder)[name]
    if name in ("search", "data prepare"):
        monkeypatch.setenv("ITMBENCH_CACHE", str(disk.folder))
    disk.has(room)
    if room == "4k":
        (disk.folder / "full").write_bytes(bytes(4096))
    status = main(command)
    error = capsys.readouterr().err
    if (name, room) in ENOUGH:
        assert status == 0
        return
    last = [line for line in error.splitlines() if str(disk.folder) in line][-1]
    assert status == 1, error
    assert NAMED[name] in last.replace("best.ckpt", "config.yaml") and "Traceback" not in error
    assert "No space left on device" in last or "disk is full" in last
    half = {path for path in files(disk.folder) if "partial" in path or "/vectors" in path or ".rendering" in path}
    assert not half and not list(disk.folder.rglob("*.lease*"))
    disk.has("20m")
    shutil.rmtree(disk.folder / "checkpoints", ignore_errors=True)  # whose config would be another run's
    assert main(command) == 0
    if name == "bench":
        assert content(disk.folder / "results") == content(done)
    if name == "tune":
        table = (disk.folder / "results" / "tuned" / "toy" / "m.csv").read_text().splitlines()
        assert len(table) == 3 and "No space" not in "".join(table)


@pytest.mark.parametrize("name", NAMED)
def test_a_disk_that_is_read_only(
    name: str, spec: Path, done: Path, disk: Disk, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name in ("search", "data prepare"):
        monkeypatch.setenv("ITMBENCH_CACHE", str(disk.folder))
    if name == "results merge":
        (disk.folder / "results").mkdir()
    disk.has("ro")
    status = main(commands(spec, done, disk.folder)[name])
    last = capsys.readouterr().err.splitlines()[-1].removeprefix("itmbench: --embeddings.folder ")
    assert status == 2 and last.removeprefix("itmbench: ").startswith(str(disk.folder))
    assert "Read-only file system" in last


def test_results_behind_a_link_to_another_disk(spec: Path, done: Path, disk: Disk, tmp_path: Path) -> None:
    """New ones, those of another folder, and one that runs again."""
    for results in ("run", "merged"):
        (tmp_path / results / "small").mkdir(parents=True)
        (disk.folder / results).mkdir()
        (tmp_path / results / "small" / "toy").symlink_to(disk.folder / results)
    assert main(bench(spec, tmp_path / "run")) == 0
    assert main(["results", "merge", str(done), f"--results={tmp_path / 'merged'}"]) == 0
    assert main(bench(spec, tmp_path / "merged", "--force")) == 0
    for results in ("run", "merged"):
        assert content(tmp_path / results) == content(done)
        assert not unfinished(tmp_path / results) and not unfinished(disk.folder / results / "m")
        assert {path.name for path in (disk.folder / results).rglob("*") if path.is_dir()} == {"m", "seed0", ".running"}


def test_results_that_are_done_are_shown_from_a_read_only_disk(spec: Path, done: Path, disk: Disk, capsys: Any) -> None:
    results = Path(shutil.copytree(done, disk.folder / "results"))
    disk.has("ro")
    for command in (
        bench(spec, results),
        ["report", f"--results={results}"],
        ["results", "list", f"--results={results}"],
    ):
        assert main(command) == 0
        assert "187.5" in capsys.readouterr().out
    before = files(disk.folder)
    assert main(["results", "rm", "small/toy/m/seed0", f"--results={results}"]) == 2
    assert "Read-only file system" in capsys.readouterr().err and files(disk.folder) == before


PROTECTED = {"its folder": "small/toy/m/seed0", "the one above": "small/toy/m", "the results": "."}


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become a user without permission")
@pytest.mark.parametrize("case", PROTECTED)
def test_cells_are_removed_all_or_none(case: str, done: Path) -> None:
    """As somebody else, for whom one of two cells is protected."""
    with tempfile.TemporaryDirectory() as folder:  # which everybody can enter, as the tests' own cannot be
        results = Path(shutil.copytree(done, Path(folder, "results")))
        shutil.copytree(results / "small/toy/m", results / "small/toy/other")
        for path in (Path(folder), *Path(folder).rglob("*")):
            os.chown(path, 12345, 12345)
        if case == "the results":
            shutil.rmtree(results / store.RUNNING, ignore_errors=True)
        os.chown(results / PROTECTED[case], 0, 0)
        before = files(results)
        cells = ["small/toy/other/seed0", "small/toy/m/seed0"]

        def remove() -> None:
            sys.stdout = sys.stderr = Path(folder, "said").open("w")  # noqa: SIM115
            os.setuid(12345)
            status = main(["results", "rm", *cells, f"--results={results}"])
            sys.stderr.flush()
            os._exit(status)

        process = FORK.Process(target=remove)
        process.start()
        assert ended(process) == 2
        [line] = Path(folder, "said").read_text().splitlines()
        assert line.startswith(f"itmbench: {results / PROTECTED[case]}") and "Permission denied" in line
        assert files(results) == before
