"""A program that this process starts, shows the lines of, and takes with it when it ends."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence

PATIENCE = 10.0
"""Seconds that a child has to end once it is told to."""
WATCH = 1.0
"""Seconds between two looks at whether the other process is still there."""


class Child:
    """A module of this package as a program, in a session of its own, so that Ctrl-C reaches this process alone.

    Args:
        module: whose ``__main__`` part it is.
        arguments: of the program.
        environment: its variables.
        prefix: of every line that it prints, when it is printed here.
    """

    def __init__(self, module: str, arguments: Sequence[str], environment: Mapping[str, str], prefix: str = "") -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            env=dict(environment),
            stdin=subprocess.DEVNULL,
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
        """The exit status, once it has ended; ``check`` is called until then, and ends it where it raises."""
        try:
            while True:
                check()
                try:
                    status = self.process.wait(WATCH)
                    self._shown.join(PATIENCE)  # others may still hold the pipe
                    return status
                except subprocess.TimeoutExpired:
                    pass
        finally:
            self.end()

    def tell(self) -> None:
        """Tell it, and all that it has started, to end."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGTERM)

    def end(self) -> None:
        """End it, and all that it has started."""
        self.tell()
        with contextlib.suppress(ProcessLookupError):
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(PATIENCE)
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def _show(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            print(f"{self._prefix}{line}", end="", flush=True)


def end_with_parent() -> None:
    """Called in a child: it does not outlive the process that has started it, however that ends."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(WATCH)
        os._exit(1)

    threading.Thread(target=watch, name="watch of the parent", daemon=True).start()
