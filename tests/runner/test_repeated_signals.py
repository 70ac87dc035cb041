"""Four runners on one store, or one training, that receive random signals leave the results of an uninterrupted run.

``ITMBENCH_REPEATS=20 pytest tests/runner/test_repeated_signals.py`` runs each case twenty times instead of once.
"""

import os
import random
import signal
import time
from datetime import UTC, datetime, timedelta
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
import torch
from small_benchmark import bench, content, ended, start, unfinished, write
from toy import toy_arguments

from itmbench import store
from itmbench.runner import cell, lease, plan, running
from itmbench.runner import run as runner

REPEATS = int(os.environ.get("ITMBENCH_REPEATS", "1"))
SIGNALS = 8
"""Signals of each run."""


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A benchmark of four cells, and what it leaves without signals."""
    spec = write(tmp_path_factory.mktemp("undisturbed"), "a", "b", seeds=(0, 1), epochs=2)
    assert not runner.run(spec, spec.parent / "results")
    return spec, content(spec.parent / "results")


def one_machine() -> None:
    """Runners of one machine, which see whether the others live."""
    os.setpgid(0, 0)
    runner.POLL = 0.1
    for number in (signal.SIGINT, signal.SIGTERM):  # until, and after, the command has handlers of its own
        signal.signal(number, lambda *_: os._exit(1))


def machines() -> None:
    """Runners that are machines of their own, with clocks a day apart; they see no more than each other's leases."""
    one_machine()
    name, wrong = str(os.getpid()), timedelta(hours=random.Random().uniform(-12, 12))
    lease._machine = lambda: name
    lease.BEAT, lease.STALE = 0.2, 2.0
    clock = time.time

    class Clock(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return datetime.now(UTC) + wrong

    time.time = lambda: clock() + wrong.total_seconds()
    for module in (plan, cell, running):
        module.datetime = Clock  # type: ignore[attr-defined]


@pytest.mark.parametrize("repeat", range(REPEATS))
@pytest.mark.parametrize("where", [one_machine, machines])
def test_signals_at_random_times(
    where: Any, repeat: int, tmp_path: Path, undisturbed: tuple[Path, dict[str, Any]]
) -> None:
    spec, whole = undisturbed
    command, generator = bench(spec, tmp_path / "results"), random.Random()
    logs = [tmp_path / f"log{number}" for number in range(4)]

    def begin(log: Path) -> BaseProcess:
        process = start(command, log, where)
        time.sleep(0.2)  # it has a handler
        return process

    runners = [begin(log) for log in logs]
    for _ in range(SIGNALS):
        time.sleep(generator.uniform(0, 0.6))
        number = generator.randrange(4)
        process, kind = runners[number], generator.choice(("STOP", "KILL", "TERM", "INT"))
        if process.exitcode is None and process.pid:
            os.kill(process.pid, signal.Signals[f"SIG{kind}"])
            if kind == "STOP":
                time.sleep(generator.uniform(0, 3))  # others may take its cell over
                os.kill(process.pid, signal.SIGCONT)
            else:
                assert ended(process) in (0, 1, -signal.SIGKILL)
        if process.exitcode is not None:
            runners[number] = begin(logs[number])
    assert [ended(process) for process in runners if process.exitcode != 1].count(0) >= 1
    assert ended(begin(logs[0])) == 0
    printed = "".join(log.read_text() for log in logs)
    assert "Traceback" not in printed and "failed" not in printed, printed
    assert content(tmp_path / "results") == whole
    assert not unfinished(tmp_path / "results")
    assert {path.name for path in (tmp_path / "results" / store.RUNNING).rglob("seed*") if path.is_dir()} == set()


def training(folder: Path, logger: str, resumed: Path | None) -> list[str]:
    """A training that draws whatever can be drawn."""
    more = [f"--trainer.logger={logger}", "--trainer.max_epochs=15", "--data.copies=1", "--model.text.dropout=0.2"]
    command = ["fit", *toy_arguments(folder, *more, "--model.image.train_crop=0.5")]
    return command if resumed is None else [*command, f"--ckpt_path={resumed}"]


def trained(folder: Path) -> Any:
    """Weights and scores of the best and of the last epoch."""
    [best, last] = [max(folder.rglob(name), key=os.path.getmtime) for name in ("best.ckpt", "last.ckpt")]
    kept = []
    for file in (best, last):
        content = torch.load(file, weights_only=True)
        scores = [state["best_model_score"] for key, state in content["callbacks"].items() if "monitor" in key]
        kept.append((content["epoch"], {key: value.tolist() for key, value in content["state_dict"].items()}, scores))
    return kept


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, float]:
    """What a training leaves without signals, and how many seconds it takes."""
    folder = tmp_path_factory.mktemp("unbroken")
    began = time.monotonic()
    assert ended(start(training(folder, "false", None), folder / "log")) == 0, (folder / "log").read_text()
    return trained(folder), time.monotonic() - began


@pytest.mark.parametrize("repeat", range(max(3, REPEATS)))
def test_a_training_that_receives_random_signals(repeat: int, tmp_path: Path, unbroken: tuple[Any, float]) -> None:
    generator, (whole, seconds) = random.Random(), unbroken
    log, folder = tmp_path / "log", tmp_path
    for blow in (*generator.sample(("TERM", "INT", "KILL"), 3), ""):
        last = max(tmp_path.rglob("last.ckpt"), key=os.path.getmtime, default=None)
        folder = folder if last else tmp_path / f"before {blow}"
        process = start(training(folder, ("false", "true")[repeat % 2], last), log)
        if blow:
            process.join(generator.uniform(0, seconds))
            if process.exitcode is None and process.pid:
                os.kill(process.pid, signal.Signals[f"SIG{blow}"])
        assert ended(process) in ((0, 1, -signal.SIGKILL, -signal.SIGTERM) if blow else (0,)), log.read_text()
    assert trained(tmp_path) == whole
