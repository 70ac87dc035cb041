"""What a benchmark prints while it runs: a line an epoch."""

import contextlib
import logging
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, TextIO

import lightning as L
from lightning.pytorch.trainer.states import TrainerFn


class EpochLines(L.Callback):
    """Prints loss and validation objective of every epoch."""

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._started = time.perf_counter()
        if trainer.global_rank == 0:
            print(flush=True)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.global_rank == 0:
            logged = {key: float(value) for key, value in trainer.callback_metrics.items()}
            shown = " ".join(f"{key} {logged[key]:.3f}" for key in ("train/loss", "val/objective") if key in logged)
            seconds = time.perf_counter() - self._started
            epoch = trainer.current_epoch + (trainer.state.fn == TrainerFn.FITTING)  # 0 where nothing is trained
            print(f"    epoch {epoch}/{trainer.max_epochs}  {shown}  {seconds:.0f} s", flush=True)


NOISE = (
    # what Lightning's CLI says of how it is called here, and of jsonargparse's coming version
    "LightningCLI's args parameter",
    r"\s*.*(was|were) deprecated in v4",
    r"\s*.*parameter was deprecated in v4",
    ".*LeafSpec.*is deprecated",
    # torch-geometric, of torch
    ".*torch.jit.script. is deprecated",
    # advice that does not fit a corpus of minutes
    ".*does not have many workers",
    ".*number of training batches .* is smaller than the logging interval",
    ".*`tensorboardX` has been removed",
    # all devices evaluate the same gathered tables, so what they log is the same; who repeats an item is known
    ".*It is recommended to use `self.log.*sync_dist=True",
    "Using `DistributedSampler` with the dataloaders",
    ".*torch.distributed.nn.functional.all_gather is deprecated",
    # frozen encoders stay in evaluation mode
    ".*module.* in eval mode at the start of training",
    # a cell goes on in its own folder; a test leaves the best checkpoint where it is
    ".*Checkpoint directory .* exists and is not empty",
    ".*The dirpath has changed",
)


def ignore_noise() -> None:
    """Hide warnings of the libraries to each other, so that those to the user are seen."""
    for message in NOISE:
        warnings.filterwarnings("ignore", message=message)


@contextmanager
def quiet() -> Iterator[None]:
    """Without Lightning's banners."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextmanager
def logged(path: Path) -> Iterator[None]:
    """What is printed meanwhile is also added to a file."""
    with (
        path.open("a", encoding="utf-8") as file,
        redirect_stdout(_Both(sys.stdout, file)),
        redirect_stderr(_Both(sys.stderr, file)),
    ):
        yield


class _Both:
    """The screen, with all that is written to it in a file as well."""

    def __init__(self, screen: TextIO, file: TextIO) -> None:
        self._screen, self._file = screen, file

    def write(self, text: str) -> int:
        self._file.write(text)
        self._file.flush()  # what is in no file yet is lost with a process that is killed
        with contextlib.suppress(BrokenPipeError):  # nobody looks any more, and training must not end of that
            self._screen.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(BrokenPipeError):
            self._screen.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._screen, name)
