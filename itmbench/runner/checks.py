"""A method and a dataset asked, before anything runs, whether they go together."""

import lightning as L

from itmbench.data.datamodule import CorpusDataModule
from itmbench.errors import InputError
from itmbench.evaluation.protocol import LabelProtocol
from itmbench.methods.base import Matcher


def check_pair(model: Matcher, data: CorpusDataModule, devices: int = 1) -> None:
    """Do what comes before the first step of training, except to train.

    Args:
        model: untrained.
        data: whose training part it is to train on.
        devices: how many it trains on.

    Raises:
        InputError: what the method, an encoder, the dataset or the protocol says of the others.
    """
    off = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    trainer = L.Trainer(accelerator="cpu", devices=devices, max_epochs=1, **off)  # type: ignore[arg-type]
    data = data.with_corpus(data.corpus)  # so that the one of the run keeps nothing of this
    model.trainer, trainer.datamodule, data.trainer = trainer, data, trainer  # type: ignore[attr-defined]
    data.setup("fit")
    model.setup("fit")
    data.training_texts()
    if isinstance(model.evaluated_by, LabelProtocol) and data.corpus.labels is None:
        raise InputError(f"{data.corpus.name}: has no labels, and {model.evaluated_by.name} measures by labels")
