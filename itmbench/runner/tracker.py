"""Weights & Biases: a run a cell, where its config asks for ``WandbLogger``. No tracker is needed to work."""

import os
import socket
import sys
from pathlib import Path
from urllib.parse import urlsplit

import lightning as L
import yaml
from jsonargparse import Namespace
from lightning.pytorch.loggers import WandbLogger

from itmbench import store
from itmbench.runner.spec import Cell

LOGGER = "lightning.pytorch.loggers.WandbLogger"
SERVER = "https://api.wandb.ai"


def prepare(config: Namespace, cell: Cell) -> None:
    """Name the run after the cell and group it by benchmark; offline where there is no key or no network.

    Args:
        config: of the cell, parsed, before trainer and model are built; changed in place.
        cell: whose config it is.
    """
    logger = config.trainer.logger
    if not isinstance(logger, Namespace) or logger.class_path != LOGGER:
        return
    of = logger.init_args
    of.name, of.group, of.job_type = f"{cell.dataset}/{cell.method}/seed{cell.seed}", cell.benchmark, cell.dataset
    if of.mode is None and "WANDB_MODE" not in os.environ and (of.offline or not _reachable()):
        of.mode = "offline"


def publish(trainer: L.Trainer, result: store.Result, folder: Path) -> None:
    """Write config, summary and the files of the result into the run of the trainer, if it has one, and end the run.

    Without an end, the next cell of this process would go on in the same run; that of a cell that failed is ended by
    ``abandon``.

    Args:
        trainer: that trained the cell.
        result: of the cell.
        folder: with ``result.json``, ``config.yaml`` and ``per_query.parquet``.
    """
    if not isinstance(trainer.logger, WandbLogger) or not trainer.is_global_zero:
        return
    import wandb

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


def abandon() -> None:
    """End the run of a cell that failed, if it has one."""
    wandb = sys.modules.get("wandb")
    if wandb is not None and wandb.run is not None:
        wandb.run.finish(exit_code=1)


def _reachable() -> bool:
    """Whether runs can be sent: the server answers, and there is a key."""
    import wandb

    server = urlsplit(os.environ.get("WANDB_BASE_URL", SERVER))
    try:
        socket.create_connection((server.hostname or "", server.port or 443), timeout=3).close()
    except OSError:
        return False
    return bool(wandb.login(prompt=False))
