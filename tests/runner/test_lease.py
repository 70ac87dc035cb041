"""Who runs a cell: one process at a time, until it is done, dead or silent."""

import json
import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from itmbench.runner import lease

FORK = multiprocessing.get_context("fork")


def other_machine(path: Path) -> Path:
    """The lease of a process that cannot be asked whether it lives."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"machine": "elsewhere", "host": "elsewhere", "pid": 1}))
    return path


def test_one_holds_until_it_releases(tmp_path: Path) -> None:
    cell = tmp_path / "m" / "seed0"
    held = lease.take(cell)
    assert held is not None and lease.take(cell) is None
    assert lease.take(tmp_path / "m" / "seed01") is not None  # another cell
    assert str(os.getpid()) in (lease.holder(cell) or "")
    held.check()
    held.release()
    assert lease.holder(cell) is None and not list(cell.parent.glob("seed0.lease*"))
    assert lease.take(cell) is not None


@pytest.mark.parametrize(
    ("variables", "taken"),
    [
        ({"SLURM_JOB_ID": "7", "SLURM_RESTART_COUNT": "1"}, True),
        ({"SLURM_JOB_ID": "7"}, False),  # another process of the same start of the job
        ({"SLURM_JOB_ID": "7", "SLURM_RESTART_COUNT": "x"}, False),
        ({"SLURM_JOB_ID": "8", "SLURM_RESTART_COUNT": "1"}, False),
        ({}, False),
    ],
)
def test_a_job_of_slurm_that_is_started_again_takes_its_cell(
    variables: dict[str, str], taken: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On another node, seconds after the first was lost with its lease."""
    monkeypatch.delenv("SLURM_RESTART_COUNT", raising=False)
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    with monkeypatch.context() as node:
        node.setattr(lease, "_machine", lambda: "the first node")
        assert lease.take(tmp_path / "seed0") is not None
    monkeypatch.delenv("SLURM_JOB_ID")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert (lease.take(tmp_path / "seed0") is not None) == taken


def _race(cell: Path, start: Any, won: Any, done: Any) -> None:
    start.wait()
    if lease.take(cell) is not None:
        won.put(os.getpid())
    done.wait()


@pytest.mark.parametrize("dead", [False, True])
def test_of_several_processes_one_gets_it(tmp_path: Path, dead: bool) -> None:
    for attempt in range(5):
        cell = tmp_path / f"seed{attempt}"
        if dead:
            os.utime(other_machine(tmp_path / f"seed{attempt}.lease3"), (0, 0))
        start, won, done = FORK.Event(), FORK.Queue(), FORK.Event()
        racers = [FORK.Process(target=_race, args=(cell, start, won, done)) for _ in range(4)]
        for racer in racers:
            racer.start()
        start.set()
        winner = won.get(timeout=30)
        time.sleep(0.1)
        assert won.empty() and winner in {racer.pid for racer in racers}
        done.set()
        for racer in racers:
            racer.join()


def test_a_dead_process_of_this_machine_loses_it_at_once(tmp_path: Path) -> None:
    cell = tmp_path / "seed0"
    dead = FORK.Process(target=lambda: lease.take(cell))
    dead.start()
    dead.join()
    assert [path.name for path in tmp_path.iterdir()] == ["seed0.lease1"]
    assert lease.holder(cell) is None and lease.take(cell) is not None


def test_a_silent_machine_loses_it_after_some_beats(tmp_path: Path) -> None:
    cell = tmp_path / "seed0"
    path = other_machine(tmp_path / "seed0.lease1")
    assert lease.take(cell) is None and (lease.holder(cell) or "").startswith("elsewhere")
    os.utime(path, (time.time() - lease.STALE + 20,) * 2)
    assert lease.take(cell) is None
    os.utime(path, (time.time() - lease.STALE - 20,) * 2)
    assert lease.take(cell) is not None


def test_a_holder_that_lives_shows_it_and_one_that_lost_it_learns_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "BEAT", 0.02)
    cell = tmp_path / "seed0"
    held = lease.take(cell)
    path = tmp_path / "seed0.lease1"
    assert held is not None
    os.utime(path, (0, 0))
    time.sleep(0.3)
    assert path.stat().st_mtime > 0
    held.check()
    other_machine(tmp_path / "seed0.lease2")
    time.sleep(0.3)
    with pytest.raises(lease.Lost):
        held.check()
    held.release()
    assert [left.name for left in tmp_path.iterdir()] == ["seed0.lease2"]  # that of the other stays


def test_a_process_that_is_stopped_keeps_it(tmp_path: Path) -> None:
    """It would write into the cell when it continues."""
    cell, held = tmp_path / "seed0", FORK.Event()

    def hold() -> None:
        lease.take(cell)
        held.set()
        time.sleep(60)

    process = FORK.Process(target=hold)
    process.start()
    assert held.wait(30) and process.pid is not None
    os.kill(process.pid, signal.SIGSTOP)
    os.utime(tmp_path / "seed0.lease1", (0, 0))
    while not (lease.holder(cell) or "").endswith("which is stopped: continue or kill it"):
        time.sleep(0.01)
    assert lease.take(cell) is None
    process.kill()
    process.join()
    assert lease.take(cell) is not None


def test_the_number_of_a_dead_process_may_be_another_s(tmp_path: Path) -> None:
    owner = lease._identity()
    (tmp_path / "seed0.lease1").write_text(json.dumps(owner))
    assert lease.take(tmp_path / "seed0") is None
    (tmp_path / "seed0.lease1").write_text(json.dumps(owner | {"started": "1"}))
    assert lease.take(tmp_path / "seed0") is not None


def test_who_was_asleep_looks_whatever_the_clock_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held, awake = lease.take(tmp_path / "seed0"), lease._awake()
    assert held is not None
    other_machine(tmp_path / "seed0.lease2")
    monkeypatch.setattr(time, "time", lambda: 0.0)
    held.check()
    monkeypatch.setattr(lease, "_awake", lambda: awake + 3 * lease.BEAT)
    with pytest.raises(lease.Lost):
        held.check()


def test_a_look_counts_once_it_has_succeeded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a thread looks, and after a look that failed, whoever was asleep has to look itself."""
    held, awake, look = lease.take(tmp_path / "seed0"), lease._awake(), lease._held
    assert held is not None
    other_machine(tmp_path / "seed0.lease2")
    monkeypatch.setattr(lease, "_awake", lambda: awake + 3 * lease.BEAT)
    looking, seen = threading.Event(), threading.Event()

    def fails(path: Path) -> list[Path]:
        raise OSError("the network is down")

    def waits(path: Path) -> list[Path]:
        if threading.current_thread() is thread:
            looking.set()
            seen.wait(30)
        return fails(path)

    thread = threading.Thread(target=held._renew)
    monkeypatch.setattr(lease, "_held", waits)
    thread.start()
    assert looking.wait(30)
    held.check()
    monkeypatch.setattr(lease, "_held", look)
    with pytest.raises(lease.Lost):
        held.check()
    seen.set()
    thread.join()
