"""A machine that is short of something: an output that is closed or full, no home, no folder, no letters but ASCII."""

import io
import os
import subprocess
import sys
from pathlib import Path
from typing import BinaryIO

import pytest
from layouts import karpathy_entries, write_karpathy
from refusal import refusal
from small_benchmark import write
from toy import toy_arguments, toy_corpus

from itmbench.cli.main import main
from itmbench.files import write_atomically

CLOSED = {"stdout": (">&-", ""), "stderr": ("2>&-", "methods:"), "all three": ("<&- >&- 2>&-", "")}


@pytest.mark.parametrize("case", CLOSED)
def test_closed_streams(case: str) -> None:
    """The next file to be opened would take the place of the stream."""
    streams, printed = CLOSED[case]
    command = f"{sys.executable} -m itmbench list {streams}"
    ended = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (0, "") and ended.stdout.startswith(printed)


def test_a_closed_stream_is_replaced_for_children_too() -> None:
    code = "import os, subprocess; from itmbench.cli import main; main.main = lambda: subprocess.call(['ls'])"
    command = f'{sys.executable} -c "{code}; main.program()" >&-'
    ended = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.parametrize("command", ["list", "report"])
def test_output_on_a_full_disk(command: str, results: Path) -> None:
    more = [f"--results={results}"] if command == "report" else []
    with open("/dev/full", "w") as full:
        call = [sys.executable, "-m", "itmbench", command, *more]
        ended = subprocess.run(call, stdout=full, stderr=subprocess.PIPE, text=True)
    assert ended.returncode == 1 and ended.stderr.count("\n") == 1
    assert ended.stderr.startswith("itmbench: the output: No space left on device")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_letters_that_the_terminal_lacks(encoding: str, results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.TextIOWrapper(io.BytesIO(), encoding)
    monkeypatch.setattr(sys, "stdout", out)
    assert main(["report", f"--results={results}"]) == 0
    out.seek(0)
    shown = out.read()
    assert "dual_infonce" in shown and ("\\xb1" in shown) == (encoding == "ascii")


def test_a_name_that_the_terminal_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    error = io.TextIOWrapper(io.BytesIO(), "ascii")
    monkeypatch.setattr(sys, "stderr", error)
    assert main(["report", "--results=Übung"]) == 2
    error.seek(0)
    assert error.read().startswith("itmbench: \\xdcbung: no such results folder")


@pytest.mark.parametrize("command", [["list"], ["report"], ["bench", "mini"], ["fit", "--model=SEDRA"]])
def test_a_folder_that_was_removed(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert "the current folder has been removed; change to another" in refusal(command, capsys, tmp_path)


MINI = ["data", "prepare", "flickr30k-mini"]


def test_no_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def unknown(path: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("ITMBENCH_CACHE")
    monkeypatch.setattr(Path, "expanduser", unknown)
    assert "set ITMBENCH_CACHE to a folder" in refusal(MINI, capsys, tmp_path)


CACHES = {"a file": __file__, "below a file": f"{__file__}/x", "in /proc": "/proc/x", "too long": "x" * 5000}


@pytest.mark.parametrize("case", CACHES)
def test_a_cache_that_cannot_be(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ITMBENCH_CACHE", CACHES[case])
    refusal(MINI, capsys, tmp_path)


def test_a_cache_that_cannot_be_written_is_said_once_in_one_line(tmp_path: Path) -> None:
    write_karpathy(tmp_path, karpathy_entries())
    call = [sys.executable, "-m", "itmbench", "data", "verify", "captions", f"--root={tmp_path}"]
    cache = {"ITMBENCH_CACHE": str(tmp_path / "dataset_small.json")}
    ended = subprocess.run(call, env=os.environ | cache, capture_output=True, text=True)  # pytest catches warnings
    [line] = ended.stderr.splitlines()
    assert line.startswith(f"{tmp_path}/dataset_small.json/corpora: cannot be written") and "Warning" not in line


@pytest.mark.parametrize("kind", ["everybody's", "somebody else's"])
def test_a_cache_of_others_is_not_trusted(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ITMBENCH_CACHE", str(tmp_path))
    (tmp_path / "mini").mkdir()
    (tmp_path / "corpora").mkdir()
    for folder in tmp_path.iterdir():
        if kind == "everybody's":
            folder.chmod(0o777)
        elif os.getuid() == 0:
            os.chown(folder, 54321, -1)
    if kind != "everybody's":
        monkeypatch.setattr(os, "getuid", lambda: 12345)
    assert "its numbers cannot be trusted; set ITMBENCH_CACHE" in refusal(MINI, capsys, tmp_path)


@pytest.mark.parametrize("name", ["RANK", "SLURM_PROCID"])
def test_a_rank_that_is_none_before_anything_is_imported(name: str) -> None:
    call = [sys.executable, "-m", "itmbench", "fit", "--model=SEDRA"]
    ended = subprocess.run(call, env=os.environ | {name: "x"}, capture_output=True, text=True)
    assert ended.returncode == 2 and ended.stderr.startswith(f"itmbench: {name}=x: is not the number of a process")


@pytest.mark.parametrize("rank", ["x", "", "-1", "1.5", "²"])
def test_a_rank_that_is_none(
    rank: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LOCAL_RANK", rank)
    assert "LOCAL_RANK" in refusal(["fit", *toy_arguments(tmp_path)], capsys, tmp_path)


def test_a_full_disk_is_named(tmp_path: Path) -> None:
    def fill(file: BinaryIO) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match=f"No space left on device: '{tmp_path / 'file'}'"):
        write_atomically(tmp_path / "file", fill)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("-OO", "PYTHONOPTIMIZE=2, or"),
        ("-We", "PYTHONWARNINGS=e, or python -W e: "),
        ("-Werror::DeprecationWarning", "PYTHONWARNINGS=error::DeprecationWarning, or"),
    ],
)
def test_an_interpreter_without_docstrings_or_with_warnings_as_errors(option: str, message: str) -> None:
    ended = subprocess.run([sys.executable, option, "-m", "itmbench", "list"], capture_output=True, text=True)
    assert ended.returncode == 2 and ended.stderr.startswith(f"itmbench: {message}") and ended.stderr.count("\n") == 1


def test_a_window_system_that_is_not_there(results: Path, tmp_path: Path) -> None:
    call = [sys.executable, "-m", "itmbench", "report", f"--results={results}", "--format=html", "--out=page.html"]
    ended = subprocess.run(call, cwd=tmp_path, env=os.environ | {"MPLBACKEND": "nonsense"}, capture_output=True)
    assert ended.returncode == 0 and (tmp_path / "page.html").exists()


@pytest.mark.parametrize(("name", "value"), [("WANDB_MODE", "typo"), ("WANDB_RUN_ID", "a/b")])
def test_settings_of_a_tracker(
    name: str, value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    toy_corpus(tmp_path / "toy")
    monkeypatch.setenv(name, value)
    arguments = toy_arguments(tmp_path, "--trainer.logger=WandbLogger", f"--trainer.logger.save_dir={tmp_path}")
    assert "correct its options, and the variables WANDB_" in refusal(["fit", *arguments], capsys, tmp_path)


def test_a_pipe_is_written_to_and_not_replaced(results: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with subprocess.Popen(["cat", str(tmp_path / "pipe")], stdout=subprocess.PIPE) as reader:
        assert main(["report", f"--results={results}", "--format=csv", f"--out={tmp_path / 'pipe'}"]) == 0
        assert reader.stdout is not None and reader.stdout.read().startswith(b"benchmark,dataset,")
    assert (tmp_path / "pipe").is_fifo()


@pytest.mark.parametrize("option", ["--results=", "--results=--"])
@pytest.mark.parametrize("command", ["report", "results list", "results merge ."])
def test_values_that_are_none(
    option: str, command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "--results" in refusal([*command.split(), option], capsys, tmp_path)


NAMESAKES = ("bottleneck", "numexpr", "numpy", "torch", "wandb", "json", "pkgutil", "sitecustomize", "typeshed_client")
"""Packages that are imported, or looked for; some are not installed."""
MINE = "from my_helper import Base\n\n\nclass Mine(Base):\n    pass\n"


@pytest.mark.parametrize("command", ["report", "fit", "bench --devices 2", "audit"])
def test_files_of_the_current_folder_are_not_taken_for_packages(command: str, tmp_path: Path) -> None:
    """But a method of it is found by its import path, with the module that it imports."""
    for name in NAMESAKES:
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'trace')!r}, 'a').write('{name} ')\n")
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "my_helper.py").write_text("from itmbench.methods.dual_encoder import DualEncoder as Base\n")
    spec = write(tmp_path, "a", "b", epochs=1)
    for name in "ab":
        config = (tmp_path / f"{name}.yaml").read_text().replace("class_path: DualEncoder", "class_path: mine.Mine")
        (tmp_path / f"{name}.yaml").write_text(config)
    toy = toy_arguments(tmp_path, "--trainer.max_epochs=1", model="mine.Mine")
    words = {
        "report": ["report", "--results=."],
        "fit": ["fit", *toy],
        "audit": ["audit", *toy, "--images=4"],
        "bench": ["bench", str(spec), "--results=done"],
    }[command.split()[0]]
    program = [str(Path(sys.executable).parent / "itmbench")]
    program = program if command == "fit" else [sys.executable, "-m", "itmbench"]
    paths = os.pathsep.join([str(Path(__file__).parents[1]), str(Path(__file__).parents[2])])
    environment = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    call = [*program, *words, *command.split()[1:]]
    ended = subprocess.run(call, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert not (tmp_path / "trace").exists(), (tmp_path / "trace").read_text()
    assert ended.returncode in {"audit": (0, 1), "report": (2,)}.get(command, (0,)), ended.stderr
    assert "Traceback" not in ended.stderr
