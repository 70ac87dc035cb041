"""A method and a dataset asked, before anything runs, whether they go together."""

from itmbench.data.datamodule import CorpusDataModule
from itmbench.errors import InputError
from itmbench.evaluation.protocol import LabelProtocol
from itmbench.methods.base import Matcher


def require_valid_pair(model: Matcher, data: CorpusDataModule, devices: int = 1) -> None:
    """Check that a method can be trained and evaluated on a dataset.

    Args:
        model: untrained.
        data: to train on.
        devices: number of devices that share a batch.

    Raises:
        InputError: what the method, an encoder, the dataset or the protocol cannot work with.
    """
    model.adapt(data.corpus)
    data.training_texts(devices)
    if isinstance(model.protocol, LabelProtocol) and data.corpus.labels is None:
        raise InputError(f"{data.corpus.name}: has no labels, which the protocol {model.protocol.name} needs")
