"""A method and a dataset that fail."""

import os
import signal
import time
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor
from toy import ToyData

from itmbench.data.corpus import Corpus
from itmbench.encoders import Embeddings
from itmbench.methods.base import Batch, Modality
from itmbench.methods.dual_encoder import DualEncoder


class Failing(DualEncoder):
    """Fails in the second epoch, or waits there, as long as a file is there.

    Args:
        while_there: the file.
        how: "nan", "inf", "memory" or "wait".
        **kwargs: those of ``DualEncoder``.
    """

    def __init__(self, while_there: str, how: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.while_there, self.how = while_there, how

    def training_loss(self, batch: Batch) -> Tensor:
        loss = super().training_loss(batch)
        if self.current_epoch == 0 or not Path(self.while_there).exists():
            return loss
        if self.how == "memory":
            raise torch.OutOfMemoryError("tried to allocate 1 PiB")
        if self.how == "wait":
            while Path(self.while_there).exists():
                time.sleep(0.1)
            return loss
        return loss * float(self.how)


class Unwrapped(DualEncoder):
    """Returns bare vectors."""

    def embed(self, items: Embeddings, modality: Modality) -> Tensor:  # type: ignore[override]
        return super().embed(items, modality).pooled


class BrokenToyData(ToyData):
    """The first training picture is cut short after it was listed."""

    def read(self) -> Corpus:
        corpus = super().read()
        (self.root / "0.png").write_bytes((self.root / "0.png").read_bytes()[:50])
        return corpus


class Terminate(L.Callback):
    """Sends SIGTERM, as a scheduler does, in the first epoch."""

    def on_train_batch_start(self, *arguments: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
