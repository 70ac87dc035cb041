"""Callbacks of every run: seeding, progress lines, stopping early, and checkpoints written atomically."""

import logging
import math
import os
import random
import shutil
import signal
import time
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from itmbench import interruption
from itmbench.data.batches import derived_seed, global_seed
from itmbench.files import write_atomically
from itmbench.methods.base import Matcher
from itmbench.runner.lease import Lease
from itmbench.runner.running import Diverged
from itmbench.units import duration, metric

logger = logging.getLogger(__name__)

CHECK_EVERY = 50
"""Steps on a GPU between two checks of the training loss."""


class SeedEpochs(L.Callback):
    """Seeds all generators at the start of every training epoch from seed, epoch and rank.

    So a resumed run draws the same numbers as one that was never interrupted. Loaders seed themselves
    (`itmbench.data.batches`).
    """

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        seed = derived_seed(global_seed(), trainer.current_epoch, trainer.global_rank)
        torch.manual_seed(seed)
        np.random.seed(seed % 2**32)
        random.seed(seed)


class EpochLines(L.Callback):
    """Logs loss and validation objective of every epoch of a training run."""

    _started: float | None = None

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._started = time.perf_counter()

    def on_validation_end(self, trainer: L.Trainer, pl_module: Matcher) -> None:  # type: ignore[override]
        if self._started is None or not trainer.is_global_zero:
            return
        values = {key: float(value) for key, value in trainer.callback_metrics.items()}
        shown = [f"train/loss {values['train/loss']:.3f}"] if "train/loss" in values else []
        if "val/objective" in values:
            name = pl_module.evaluated_by.objective
            data: Any = trainer.datamodule  # type: ignore[attr-defined]
            among = len(data.stage("val").images)
            shown.append(f"val/{name} {metric(name, values['val/objective'])} ({among:,} images)")
        epoch = trainer.current_epoch + (trainer.state.fn == TrainerFn.FITTING)  # 0 where nothing is trained
        elapsed = duration(time.perf_counter() - self._started)
        logger.info("    epoch %d/%s  %s  %s", epoch, trainer.max_epochs, " ".join(shown), elapsed)


class CheckLease(L.Callback):
    """Raises `itmbench.runner.lease.Lost` once another process has taken over the cell."""

    def __init__(self, lease: Lease) -> None:
        self._lease = lease

    def _check(self, *arguments: Any) -> None:
        self._lease.check()

    on_train_batch_end = on_validation_start = on_test_start = _check  # type: ignore[assignment]
    on_validation_end = on_train_epoch_end = _check  # type: ignore[assignment]  # before checkpoints are written


class NoticeInterruption(L.Callback):
    """Ends a run that was interrupted, even if Python dropped the exception of the signal."""

    def _check(self, *arguments: Any) -> None:
        interruption.require_none()

    on_train_batch_end = on_validation_batch_end = on_test_batch_end = on_predict_batch_end = _check  # type: ignore[assignment]


class StopWhenDiverged(L.Callback):
    """Raises ``Diverged`` if a training loss is infinite or NaN: at once on a CPU, in ``CHECK_EVERY`` steps on a GPU.

    Reading every loss would make the GPU wait in every step. A diverged epoch is never validated or saved.
    """

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._losses: list[tuple[int, Tensor]] = []

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        loss = outputs["loss"] if isinstance(outputs, dict) else outputs
        if loss is None:
            return
        self._losses.append((batch_idx + 1, loss.detach()))
        if loss.device.type == "cpu" or len(self._losses) == CHECK_EVERY:
            self._check(trainer)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking:
            self._check(trainer)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._check(trainer)

    def _check(self, trainer: L.Trainer) -> None:
        """Check the losses since the last check."""
        steps, losses = [step for step, _ in self._losses], [loss for _, loss in self._losses]
        self._losses = []
        for step, loss in zip(steps, torch.stack(losses).tolist() if losses else [], strict=True):
            if not math.isfinite(loss):
                rates = {group["lr"] for optimizer in trainer.optimizers for group in optimizer.param_groups}
                raise Diverged(
                    f"the training loss is {loss:.0f} in step {step} of epoch {trainer.current_epoch + 1}, "
                    f"at a learning rate of {max(rates, default=0):.2g}"
                )


class EndOnSigterm(L.Callback):
    """Makes SIGTERM end all processes of a run on several devices at once.

    The handler of Lightning 2.6 starts a collective call. If another collective is under way, all processes wait for
    ever. Lightning sets its handler before the hooks of this class, which replace it.
    """

    def _set(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        def end(number: int, frame: object) -> None:
            if trainer.strategy.launcher is not None:
                trainer.strategy.launcher.kill(signal.SIGKILL)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGTERM)

        signal.signal(signal.SIGTERM, end)

    on_sanity_check_start = on_train_start = on_validation_start = on_test_start = on_predict_start = _set


class Checkpoint(ModelCheckpoint):
    """Resumes in a new folder, in one that was moved, or in one that another machine sees under another path.

    Lightning 2.6 forgets the best score when the path differs, and takes the next checkpoint for the best. The best so
    far is copied into the new folder, which then needs no other.
    """

    _resumed = Path()

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        self._resumed, self._copies = Path(trainer.ckpt_path or "").parent, dict[Path, Path]()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        lost = set[str]()

        def here(path: str) -> str:
            """The path in this run's folder, for what lies beside the resumed checkpoint, there, or where it was."""
            own = Path(self.dirpath or "", Path(path).name)
            places = (self._resumed / own.name, own, Path(path))
            place = next((place for place in places if place.is_file()), None)
            if place is None:
                lost.add(path)
                return path
            self._copies[own] = place
            return str(own)

        paths = ("best_model_path", "kth_best_model_path", "last_model_path")
        moved = {**state_dict, "dirpath": self.dirpath, **{key: here(state_dict[key]) for key in paths}}
        moved["best_k_models"] = {here(path): score for path, score in state_dict["best_k_models"].items()}
        is_lost = (state_dict["best_model_path"] or state_dict["last_model_path"]) in lost
        super().load_state_dict(state_dict if is_lost else moved)

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Copy what was kept so far, now that other callbacks have accepted the checkpoint."""
        for own, place in self._copies.items():
            if trainer.is_global_zero and own != place:
                with place.open("rb") as file:
                    write_atomically(own, partial(shutil.copyfileobj, file))


class WholeFiles(TorchCheckpointIO):
    """Writes checkpoints atomically.

    Lightning 2.6 writes to the system's temporary folder and moves the file, which copies it if that folder is on
    another disk.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        write_atomically(path, lambda file: torch.save(checkpoint, file))
