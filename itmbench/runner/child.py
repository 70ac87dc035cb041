"""A program that this process starts, shows the lines of, and takes with it when it ends."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence

LAUNCHERS = (
    *("LOCAL_RANK", "RANK", "GROUP_RANK", "NODE_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"),
    *("TORCHELASTIC_RUN_ID", "SLURM_NTASKS", "SLURM_PROCID"),
)
"""Variables by which Lightning takes it that somebody else starts the processes, or that this is not the first."""
LOOK = 1.0
"""Seconds between two looks at what is waited for."""


class Child:
    """A module of this package as a program, in a session of its own, so that Ctrl-C reaches this process alone.

    Args:
        module: whose ``__main__`` part it is; it calls ``end_with_parent``.
        arguments: of the program.
        variables: of its environment, beside those of this process.
        prefix: of every line that it prints, when it is printed here.
    """

    def __init__(
        self, module: str, arguments: Sequence[str], variables: Mapping[str, str] | None = None, prefix: str = ""
    ) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            env={**os.environ, **(variables or {})},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        self._prefix = prefix
        self._shown = threading.Thread(target=self._show, daemon=True)
        self._shown.start()

    def wait(self, check: Callable[[], None] = lambda: None) -> int:
        """The exit status, once it has ended; ``check`` is called meanwhile."""
        while True:
            check()
            with contextlib.suppress(subprocess.TimeoutExpired):
                status = self._process.wait(LOOK)
                self._shown.join(LOOK)  # others may still hold the pipe
                return status

    def tell(self) -> None:
        """Ask it to end."""
        self._signal(signal.SIGTERM)

    def end(self, patience: float = 0.0) -> None:
        """End it, and all that it has started, once it has had some seconds to end by itself."""
        if patience:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(patience)
        self._signal(signal.SIGKILL)
        self._process.wait()

    def _signal(self, which: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, which)

    def _show(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with contextlib.suppress(OSError, ValueError):  # nobody looks any more, and it must not wait for that
                print(f"{self._prefix}{line}", end="", flush=True)


def end_with_parent() -> None:
    """Called in a child, and in what it starts anew: it does not outlive the process that has started it."""

    def watch() -> None:
        os.read(0, 1)  # nothing is ever written there: it is closed
        os._exit(1)

    threading.Thread(target=watch, name="watch of the parent", daemon=True).start()


def forget_launcher() -> None:
    """Whoever has started this process, it starts those of its runs itself."""
    for name in LAUNCHERS:
        os.environ.pop(name, None)
    warnings.filterwarnings("ignore", message=".*`srun` command is available")
