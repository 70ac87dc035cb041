"""What a run does beside training: seeds its epochs, ends where it has to, writes checkpoints that are whole files."""

import os
import random
import signal
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import ModelCheckpoint

from itmbench.data.batches import derived_seed, global_seed


class SeedEpochs(L.Callback):
    """Sets all generators at the start of a training epoch, from seed, epoch and rank.

    So a run that goes on from a checkpoint draws what one that was not interrupted draws. Loaders have their own way
    (`itmbench.data.batches`).
    """

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        seed = derived_seed(global_seed(), trainer.current_epoch, trainer.global_rank)
        torch.manual_seed(seed)
        np.random.seed(seed % 2**32)
        random.seed(seed)


class Diverged(RuntimeError):
    """The training loss is not finite."""


class StopWhenDiverged(L.Callback):
    """Ends training at the first loss that is NaN or infinite."""

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        loss = outputs["loss"] if isinstance(outputs, dict) else outputs
        if loss is not None and not bool(torch.isfinite(loss).all()):
            rates = {group["lr"] for optimizer in trainer.optimizers for group in optimizer.param_groups}
            raise Diverged(
                f"the training loss is {float(loss):.0f} in step {batch_idx + 1} of epoch {trainer.current_epoch + 1}, "
                f"at a learning rate of {max(rates, default=0):.2g}"
            )


class EndOnSigterm(L.Callback):
    """Has SIGTERM end a run on several devices at once.

    Lightning's (2.6) handler calls the other processes, which may be calling each other for something else: all of them
    then wait forever. It is set behind ``setup`` and ``on_fit_start``, before the hooks of this class.
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
    """Goes on in a folder that has been moved, or that another machine knows by another path.

    Lightning's (2.6) forgets how good the best checkpoint was where the path differs, and takes the next one for it.
    """

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        def here(path: str) -> str:
            return str(Path(self.dirpath or "", Path(path).name)) if path else path

        if os.path.exists(here(state_dict["best_model_path"]) or here(state_dict["last_model_path"])):
            paths = ("best_model_path", "kth_best_model_path", "last_model_path")
            state_dict = {**state_dict, "dirpath": self.dirpath, **{key: here(state_dict[key]) for key in paths}}
            state_dict["best_k_models"] = {here(path): score for path, score in state_dict["best_k_models"].items()}
        super().load_state_dict(state_dict)


class WholeFiles(TorchCheckpointIO):
    """Checkpoints that are there whole or not at all, whenever the process ends.

    Lightning (2.6) writes to the system's temporary folder first and moves the file, which copies it where that folder
    is on another disk.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        partial = f"{path}.partial"
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        torch.save(checkpoint, partial)
        os.replace(partial, path)
