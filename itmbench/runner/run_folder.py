"""The folder of a training run: one process at a time trains in it, and its config lies beside its checkpoints."""

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.cli import SaveConfigCallback

from itmbench.errors import InputError
from itmbench.files import locked, real_path, write_atomically
from itmbench.runner.callbacks import Checkpoint
from itmbench.runner.given import require_unused


def run_folder(trainer: L.Trainer) -> Path:
    """The folder that a run keeps its config in: a logger's, which is new for every run, or that of its checkpoints."""
    folder = Path(getattr(trainer.checkpoint_callback, "dirpath", None) or trainer.default_root_dir)
    return folder.parent if trainer.loggers and folder.name == "checkpoints" else folder


class SaveConfig(SaveConfigCallback):
    """Saves the resolved config of a training run beside its checkpoints; the loggers get it as hyperparameters."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._alone = ExitStack()  # holds the folder of the run

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if stage != "fit":  # which may still be refused: a logger makes its folder when it first logs
            self._log(trainer)

    def _log(self, trainer: L.Trainer) -> None:
        for logger in trainer.loggers if trainer.is_global_zero else ():
            logger.log_hyperparams(self.config.as_dict())

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the config, before training; checkpoint callbacks know their folders by now."""
        if not trainer.is_global_zero:
            return
        folder = run_folder(trainer)
        kept = [callback for callback in trainer.checkpoint_callbacks if isinstance(callback, Checkpoint)]
        files = [Path(callback.dirpath or "", f"{callback.filename}.ckpt") for callback in kept]
        resumed = trainer.ckpt_path and real_path(trainer.ckpt_path).parent
        if resumed not in [real_path(file.parent) for file in files]:
            # A logger has a new folder for every run, and may write a config.yaml of its own into it.
            require_unused(files if trainer.loggers else [folder / "config.yaml", *files])
        self._log(trainer)  # a tracker may refuse its settings
        folder.mkdir(parents=True, exist_ok=True)
        try:
            self._alone.enter_context(locked(folder, wait=False))
        except BlockingIOError:
            raise InputError(
                f"{folder}: another process trains here; wait for it, or give this run another "
                "--trainer.default_root_dir"
            ) from None
        write_atomically(folder / "config.yaml", self.parser.dump(self.config, skip_none=False))

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Let others use the folder."""
        self._alone.close()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Let others use the folder; Lightning then calls no teardown."""
        self._alone.close()
