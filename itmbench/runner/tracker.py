"""Weights & Biases: one run for each cell whose config asks for ``WandbLogger``. Trouble with it never fails a cell."""

import logging
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import lightning as L
import yaml
from jsonargparse import Namespace
from lightning.pytorch.loggers import WandbLogger

from itmbench import store
from itmbench.errors import InputError, in_a_line
from itmbench.runner.spec import Cell

LOGGER = "lightning.pytorch.loggers.WandbLogger"
SERVER = "https://api.wandb.ai"

logger = logging.getLogger(__name__)


def require_settings(config: Namespace) -> None:
    """Raise an InputError if a cell's config asks for the tracker, and it will not accept its environment variables."""
    if not _is_asked_for(config):
        return
    import wandb

    try:
        wandb.Settings().update_from_env_vars(dict(os.environ))
    except (ValueError, wandb.errors.UsageError) as error:
        raise InputError(f"trainer.logger: {in_a_line(error)}; correct the variables WANDB_…") from None


def prepare(config: Namespace, cell: Cell) -> None:
    """Change a cell's config: name the run after the cell, group it by benchmark, go offline without key or network."""
    if not _is_asked_for(config):
        return
    options = config.trainer.logger.init_args
    options.name = f"{cell.dataset}/{cell.method}/seed{cell.seed}"
    options.group, options.job_type = cell.benchmark, cell.dataset
    if options.mode is None and "WANDB_MODE" not in os.environ and (options.offline or not _reachable()):
        options.mode = "offline"


def publish(trainer: L.Trainer, result: store.Result, folder: Path) -> None:
    """Write config, summary and result files into the trainer's run, if it has one, and end the run.

    Otherwise the next cell of this process would continue the same run.
    """
    if not isinstance(trainer.logger, WandbLogger) or not trainer.is_global_zero:
        return
    import wandb

    with _only_warns():
        run = trainer.logger.experiment
        config = yaml.safe_load((folder / store.CONFIG).read_text(encoding="utf-8"))
        run.config.update(config, allow_val_change=True)
        run.summary.update(
            {**result.metrics, "validation": result.validation, "seconds": result.seconds, "key": result.key}
        )
        artifact = wandb.Artifact(f"result-{result.key}", "result", metadata={"protocol": result.protocol})
        for name in (store.RESULT, store.CONFIG, store.PER_QUERY):
            artifact.add_file(str(folder / name))
        run.log_artifact(artifact)
        run.finish()
    abandon()  # ends the run if that failed


def abandon() -> None:
    """End the run of a failed cell, if it has one."""
    wandb = sys.modules.get("wandb")
    if wandb is not None and wandb.run is not None:
        with _only_warns():
            wandb.run.finish(exit_code=1)


@contextmanager
def _only_warns() -> Iterator[None]:
    """Whatever the tracker raises becomes a warning: the result is on disk."""
    try:
        yield
    except Exception as error:
        logger.warning("    Weights & Biases: %s (%s); the result on disk is complete", type(error).__name__, error)


def _is_asked_for(config: Namespace) -> bool:
    tracker = config.trainer.logger
    return isinstance(tracker, Namespace) and tracker.class_path == LOGGER


def _reachable() -> bool:
    """Whether the server answers and there is a key."""
    import wandb

    server = urlsplit(os.environ.get("WANDB_BASE_URL", SERVER))
    try:
        socket.create_connection((server.hostname or "", server.port or 443), timeout=3).close()
    except OSError:
        return False
    return bool(wandb.login(prompt=False))
