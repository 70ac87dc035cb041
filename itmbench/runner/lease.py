"""The right to run a cell: a file that only one process can create, and that it keeps fresh while it lives.

This needs nothing of a file system but exclusive creation and modification times, so machines that share a results
folder share its cells. A process of this machine counts as dead once it is gone: one that is merely stopped would write
into the cell when it continues. Any other holder counts as dead if its file grows old. Files are numbered. To take a
cell over, a process creates the next number, which only one can do; nobody removes a file that another process may have
renewed. All times are those of the file system, so clocks need not agree.
"""

import contextlib
import json
import os
import socket
import threading
import time
from pathlib import Path
from typing import Any
from uuid import uuid4

BEAT = 15.0
"""Seconds between two renewals."""
STALE = 180.0
"""Seconds without a renewal after which a holder counts as dead; network file systems may show times a minute late."""


class Lost(Exception):
    """Another process has taken over the cell, because this one seemed dead."""


class Lease:
    """The right to run one cell, held by this process until ``release``; use ``take`` to get one."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._released = threading.Event()
        self._lost = False
        self._looked = _awake()
        threading.Thread(target=self._live, name=f"lease of {path.name}", daemon=True).start()

    def check(self, on_disk: bool = False) -> None:
        """Raise ``Lost`` if another process has taken over the cell.

        The disk is read if ``on_disk``, or if the last successful read is long ago, as after the machine slept.
        """
        if on_disk or _awake() - self._looked > 2 * BEAT:
            self._renew()
        if self._lost:
            raise Lost(f"{self._path.name} is gone, or there is a later one")

    def release(self) -> None:
        """Let others run the cell."""
        self._released.set()
        for path in _held(self._path):
            if _number(path) <= _number(self._path):
                path.unlink(missing_ok=True)

    def _live(self) -> None:
        while not (self._lost or self._released.wait(BEAT)):
            self._renew()

    def _renew(self) -> None:
        began = _awake()
        try:
            lost = _held(self._path)[-1:] != [self._path]
            if not lost:
                os.utime(self._path)
        except FileNotFoundError:
            lost = True
        except OSError:  # a network may fail for a moment; the next check looks again
            return
        self._lost = self._lost or lost
        self._looked = began  # last: another thread that checks meanwhile must look itself


def take(cell: Path) -> Lease | None:
    """The lease of a cell, beside the folder that it runs in; None if another process holds it."""
    held = _held(cell)
    if held and _alive(held[-1]):
        return None
    path = cell.with_name(f"{cell.name}.lease{_number(held[-1]) + 1 if held else 1}")
    cell.parent.mkdir(parents=True, exist_ok=True)
    try:
        with path.open("x") as file:
            json.dump(_identity(), file)
    except FileExistsError:
        return None
    except OSError as error:  # a full disk; an empty lease would keep others from the cell for a while
        path.unlink(missing_ok=True)
        error.filename = str(path)
        raise
    if any(_alive(other) for other in _held(cell) if other != path):  # taken while this one looked
        path.unlink(missing_ok=True)
        return None
    return Lease(path)


def shared(cell: Path) -> Lease:
    """The lease of a cell that the parent process holds; this process renews it as well."""
    held = _held(cell)
    if not held:
        raise Lost(f"no process holds {cell.name}")
    return Lease(held[-1])


def holder(cell: Path) -> str | None:
    """The holder of a cell as "host, process 17"; None if no process runs it."""
    held = _held(cell)
    if not held or not _alive(held[-1]):
        return None
    owner = _owner(held[-1])
    stopped = owner.get("machine") == _machine() and _state(owner["pid"])[:1] in (["T"], ["t"])
    process = f"{owner.get('host', 'another machine')}, process {owner.get('pid', 'unknown')}"
    return f"{process}, which is stopped: continue or kill it" if stopped else process


def _held(cell: Path) -> list[Path]:
    """The lease files of a cell, or of one of its leases, by number."""
    start = cell.name.partition(".lease")[0] + ".lease"
    with contextlib.suppress(FileNotFoundError):
        files = (path for path in cell.parent.iterdir() if path.name.startswith(start))
        return sorted((path for path in files if path.name.removeprefix(start).isdecimal()), key=_number)
    return []


def _number(path: Path) -> int:
    return int(path.name.rpartition(".lease")[2])


def _owner(path: Path) -> dict[str, Any]:
    """Machine, host and process of a lease's holder; empty while the file is being written, or if it is not a lease."""
    try:
        owner = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return owner if isinstance(owner, dict) and isinstance(owner.get("pid"), int) else {}


def _alive(path: Path) -> bool:
    """Whether the holder of a lease is alive, as far as this machine can tell."""
    owner = _owner(path)
    if _is_before(owner, _identity()):
        return False
    if owner.get("machine") == _machine():
        if not _runs(owner["pid"]):
            return False
        started = _started(owner["pid"])
        if started is not None and "started" in owner:
            return bool(owner["started"] == started)  # else the number is now another process's
    try:
        return abs(_now(path.parent) - path.stat().st_mtime) < STALE  # a live holder never dates it ahead
    except FileNotFoundError:
        return False


def _is_before(owner: dict[str, Any], now: dict[str, Any]) -> bool:
    """Whether a holder is an earlier start of this Slurm job, which Slurm ended before it started the job again."""
    same = "job" in owner and owner["job"] == now.get("job")
    return same and isinstance(owner.get("starts"), int) and owner["starts"] < now["starts"]


def _runs(process: int) -> bool:
    """Whether a process of this machine runs; zombies do not."""
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):  # an OverflowError: no process has such a number
        return False
    except OSError:  # another user's process
        pass
    return _state(process)[:1] != ["Z"]


def _state(process: int) -> list[str]:
    """The system's record of a process: its state first, its start time at index 19; empty if there is none."""
    with contextlib.suppress(OSError):  # gone, or a system without /proc
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return []


def _started(process: int) -> str | None:
    """The start time, which tells a process from an earlier one of the same number, if the system knows it."""
    return next(iter(_state(process)[19:20]), None)


def _awake() -> float:
    """Seconds on a clock that cannot be set and, if the system has one, also runs while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


def _now(folder: Path) -> float:
    """The time by the clock of the file system."""
    probe = folder / f".{uuid4().hex}"
    try:
        probe.touch()
        return probe.stat().st_mtime
    except OSError:
        return time.time()
    finally:
        with contextlib.suppress(OSError):
            probe.unlink()


def _identity() -> dict[str, Any]:
    """This process as the holder of a lease."""
    process, job, starts = os.getpid(), os.environ.get("SLURM_JOB_ID"), os.environ.get("SLURM_RESTART_COUNT", "0")
    identity = {"machine": _machine(), "host": socket.gethostname(), "pid": process, "started": _started(process)}
    return identity | ({"job": job, "starts": int(starts)} if job and starts.isdecimal() else {})


def _machine() -> str:
    """Identifies this machine, and this container on it: containers number their processes separately."""
    parts = [socket.gethostname()]
    with contextlib.suppress(OSError):
        parts += [Path("/proc/sys/kernel/random/boot_id").read_text().strip(), os.readlink("/proc/self/ns/pid")]
    return " ".join(parts)
