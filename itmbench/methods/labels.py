"""What the methods that learn from labels share."""

import torch
from torch import Tensor

from itmbench.errors import InputError
from itmbench.methods.base import Matcher


def training_labels(method: Matcher) -> Tensor:
    """Labels of the training images, float32 `[N, C]`, as they are trained with: the corrupted ones where some are.

    Raises:
        InputError: the data has no labels.
    """
    corpus = method.data.corpus
    labels = corpus.labels_trained_with
    if labels is None:
        raise InputError(
            f"{corpus.name}: has no labels, and {type(method).__name__} needs labels: use a dataset with labels"
        )
    return torch.from_numpy(labels[corpus.train]).float()


def label_error(predicted: Tensor, labels: Tensor) -> Tensor:
    """Mean Euclidean distance, a scalar, between predicted labels `[B, C]` and labels `[B, C]`."""
    return torch.linalg.vector_norm(predicted.float() - labels.float(), dim=1).mean()
