"""Logging: progress on stderr, and a copy in a file."""

import logging
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from itmbench.units import duration

PACKAGE = __name__.partition(".")[0]
LIGHTNING = ("lightning.pytorch", "lightning.fabric")
NOISE = (
    # from Lightning's CLI about how it is called here, and about the next version of jsonargparse
    "LightningCLI's args parameter",
    r"\s*.*(was|were) deprecated in v4",
    r"\s*.*parameter was deprecated in v4",
    ".*LeafSpec.*is deprecated",
    # from torch-geometric about torch
    ".*torch.jit.script. is deprecated",
    # advice that does not suit a corpus of minutes
    ".*does not have many workers",
    ".*number of training batches .* is smaller than the logging interval",
    ".*`tensorboardX` has been removed",
    # every device evaluates the same gathered tables, so all of them log the same values
    ".*It is recommended to use `self.log.*sync_dist=True",
    "Using `DistributedSampler` with the dataloaders",
    ".*torch.distributed.nn.functional.all_gather is deprecated",
    # frozen encoders stay in evaluation mode
    ".*module.* in eval mode at the start of training",
    # a cell resumes in its own folder, and a test leaves the best checkpoint where it is
    ".*Checkpoint directory .* exists and is not empty",
    ".*The dirpath has changed",
    # wherever Slurm is installed; docs/training.md and docs/benchmarks.md say how to use it
    "The `srun` command is available on your system but is not used",
    # said in plain words by `itmbench fit`
    ".*could not find the monitored key",
)
"""Warnings that are not meant for users, as regular expressions."""


class _Console(logging.StreamHandler[TextIO]):
    """Writes to whatever ``sys.stderr`` is at the time."""

    verbosity = 0

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:  # type: ignore[override]
        return sys.stderr

    def filter(self, record: logging.LogRecord) -> bool:
        ours = record.name.partition(".")[0] == PACKAGE
        return record.levelno >= logging.WARNING or self.verbosity > 0 or (ours and self.verbosity == 0)


_console = _Console()


def configure(verbosity: int = 0) -> None:
    """Write log messages to stderr as plain text.

    Verbosity 0 shows progress, 1 adds debug messages and those of other libraries, -1 shows only warnings.
    """
    _console.verbosity = verbosity
    root = logging.getLogger()
    if _console not in root.handlers:
        root.addHandler(_console)
        logging.captureWarnings(True)
        warnings.formatwarning = _warning
    logging.getLogger(PACKAGE).setLevel(logging.DEBUG if verbosity > 0 else logging.INFO)


def _warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    """One line for a warning: where another package warns, and what it or this one says."""
    ours = Path(filename).is_relative_to(Path(__file__).parent)
    return str(message) if ours else f"{filename}:{lineno}: {category.__name__}: {message}"


def verbosity() -> int:
    """The argument of the last ``configure``."""
    return _console.verbosity


class Progress:
    """Logs the progress of a task on the caller's logger, with amounts as text by ``show``, every few seconds."""

    def __init__(
        self,
        logger: logging.Logger,
        what: str,
        total: int | None,
        show: Callable[[int], str] = "{:,}".format,
        done: int = 0,
        every: float = 5.0,
    ) -> None:
        self.logger, self.what, self.total, self.show, self.done, self.every = logger, what, total, show, done, every
        self._began, self._start, self._next = time.monotonic(), done, time.monotonic() + every

    def advance(self, amount: int = 1) -> None:
        """Count what has been done since."""
        self.done += amount
        now, rest = time.monotonic(), ""
        if now >= self._next:
            self._next = now + self.every
            if self.total:
                left = (now - self._began) / max(1, self.done - self._start) * (self.total - self.done)
                rest = f" of {self.show(self.total)} ({self.done / self.total:.0%}), about {duration(left)} left"
            self.logger.info(f"{self.what}: {self.show(self.done)}{rest}")


@contextmanager
def to_file(path: Path) -> Iterator[None]:
    """Append progress and warnings to a file as well."""
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s  %(message)s", "%Y-%m-%d %H:%M:%S"))
    root, package = logging.getLogger(), logging.getLogger(PACKAGE)
    level = package.level
    package.setLevel(min(package.getEffectiveLevel(), logging.INFO))
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)
        handler.close()
        package.setLevel(level)


@contextmanager
def quiet() -> Iterator[None]:
    """Hide Lightning's banners, unless the user asked for the messages of libraries."""
    loggers = [logging.getLogger(name) for name in LIGHTNING]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.INFO if _console.verbosity > 0 else logging.WARNING)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def ignore_noise() -> None:
    """Hide warnings between libraries and, without -v, Lightning's notes; call it once Lightning is imported."""
    for message in NOISE:
        warnings.filterwarnings("ignore", message=message)
    for name in LIGHTNING if _console.verbosity <= 0 else ():
        logging.getLogger(name).setLevel(logging.WARNING)
