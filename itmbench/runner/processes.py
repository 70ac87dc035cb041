"""Processes that a benchmark starts: runners on this machine, runners as Slurm jobs, the ranks of one cell.

`itmbench.runner.worker` is what they run; this module knows it by name only.
"""

import contextlib
import logging
import os
import shlex
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from itmbench import logs
from itmbench.errors import InputError
from itmbench.files import real_path

WORKER = "itmbench.runner.worker"
LAUNCHERS = (
    *("LOCAL_RANK", "RANK", "GROUP_RANK", "NODE_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"),
    *("TORCHELASTIC_RUN_ID", "SLURM_NTASKS", "SLURM_PROCID"),
)
"""Variables from which Lightning infers that a launcher starts the processes, or that this is not the first one."""
POLL = 1.0
"""Seconds between two checks of a process that is waited for."""
PATIENCE = 20.0
"""Seconds that runners have to end by themselves when they are interrupted."""
SLURM = """#!/bin/bash
#SBATCH --ntasks=1 --cpus-per-task={cpus}{gpus}
#SBATCH --requeue --open-mode=append
cd {here}
exec {command}
"""
"""No early warning signal: a runner that exits on one counts as failed, and Slurm does not requeue it."""

logger = logging.getLogger(__name__)


class Child:
    """A worker process that ends with this one, in a session of its own so that Ctrl-C reaches this process only.

    Its output is logged here line by line after a prefix. The worker must call ``end_with_parent``.
    """

    def __init__(self, arguments: Sequence[str], variables: Mapping[str, str] | None = None, prefix: str = "") -> None:
        self._process = subprocess.Popen(
            _command(arguments),
            env={**os.environ, "PYTHONSAFEPATH": "1", **(variables or {})},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        self._prefix = prefix
        self._output = threading.Thread(target=self._log, daemon=True)
        self._output.start()

    def wait(self, check: Callable[[], None] = lambda: None) -> int:
        """Wait for its end and return the exit status; ``check`` is called meanwhile."""
        while True:
            check()
            with contextlib.suppress(subprocess.TimeoutExpired):
                status = self._process.wait(POLL)
                self._output.join(POLL)  # its own children may still hold the pipe
                return status

    def signal(self, number: int) -> None:
        """Send a signal to it and its children."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def kill(self, patience: float = 0.0) -> None:
        """Kill it and its children, after ``patience`` seconds in which it may end by itself."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(patience)
        self.signal(signal.SIGKILL)
        self._process.wait()

    def _log(self) -> None:
        # The child has applied -q already: whatever it still prints must be shown.
        level = logging.WARNING if logs.verbosity() < 0 else logging.INFO
        assert self._process.stdout is not None
        for line in self._process.stdout:
            logger.log(level, "%s%s", self._prefix, line.rstrip("\n"))


def end_with_parent() -> None:
    """End this process as soon as the one that started it ends; called in a ``Child`` and in its children."""

    def watch() -> None:
        os.read(0, 1)  # nothing is ever written there: this returns when the parent's end is closed
        os._exit(1)

    threading.Thread(target=watch, name="watch of the parent", daemon=True).start()


def forget_launcher() -> None:
    """Hide the launcher that started this process, so that Lightning starts the processes of its runs itself."""
    for name in LAUNCHERS:
        os.environ.pop(name, None)
    hide_srun_hint()


def hide_srun_hint() -> None:
    """Hide Lightning's advice to start the program by srun, which benchmarks do not need."""
    warnings.filterwarnings("ignore", message=".*`srun` command is available")


def run_side_by_side(arguments: Sequence[str], count: int, gpus: int) -> None:
    """Run several runners on this machine until all have ended, each on a GPU; without GPUs they share processors."""
    if 0 < gpus < count:
        raise InputError(f"--devices {count}: this machine has {gpus} GPU{'s' if gpus > 1 else ''}")
    children: list[Child] = []
    try:
        for number, variables in enumerate(device_variables(count, gpus)):
            children.append(Child([*arguments, "--child"], variables, f"{number} | "))
        for child in children:
            child.wait()
    finally:
        for child in children:
            child.signal(signal.SIGTERM)
        for child in children:
            child.kill(PATIENCE)


def device_variables(count: int, gpus: int) -> list[dict[str, str]]:
    """Environment of each runner: its GPU, if there are any."""
    if not gpus:
        return [{}] * count
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = visible.split(",") if visible else [str(number) for number in range(gpus)]
    return [{"CUDA_VISIBLE_DEVICES": name} for name in names[:count]]


def submit(arguments: Sequence[str], name: str, count: int, gpus: int, cpus: int, log_folder: Path) -> str:
    """Submit an array of Slurm jobs, one runner each, and return its number; ``gpus`` and ``cpus`` are those of a job.

    ``SBATCH_...`` variables set everything else that they need. All machines must share the results folder.
    """
    script = SLURM.format(
        cpus=cpus,
        gpus=f" --gpus-per-task={gpus}" if gpus else "",
        here=shlex.quote(os.getcwd()),
        command=shlex.join(_command(arguments)),
    )
    log_folder.mkdir(parents=True, exist_ok=True)
    output = f"{str(real_path(log_folder)).replace('%', '%%')}/slurm-%A-%a.txt"
    options = ["--parsable", f"--job-name=itmbench-{name}", f"--array=0-{count - 1}", f"--output={output}"]
    try:
        done = subprocess.run(["sbatch", *options], input=script, capture_output=True, text=True, check=True)
    except OSError as error:
        raise InputError(
            f"--launcher slurm: cannot call sbatch here ({error.strerror}); use a machine that submits Slurm jobs"
        ) from error
    except subprocess.CalledProcessError as error:
        raise InputError(f"--launcher slurm: {' '.join(error.stderr.split())}") from error
    return done.stdout.strip().partition(";")[0]


def _command(arguments: Sequence[str]) -> list[str]:
    return [sys.executable, "-P", "-m", WORKER, *arguments]  # -P: no file of this folder in place of a package
