"""What every encoder is: raw items -> tensors in the loader's workers, tensors -> embeddings on the device."""

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from itmbench.data.corpus import Features, ImageFiles, Rows, Strings
from itmbench.encoders.embeddings import Embeddings

PRETRAINING = ("scratch", "unimodal", "image-text")
"""What weights have seen before: nothing; images or words alone; images with their texts. Rows rank within a class."""

Inputs = dict[str, Tensor]
"""One batch of one modality, ready for the device: the keyword tensors that an encoder's ``forward`` takes."""


class Processor(Protocol):
    """Turns raw items into a batch; small and picklable, because it runs in the loader's workers."""

    def __call__(self, items: Sequence[Any], train: bool) -> Inputs: ...


class Encoder(nn.Module):
    """Base of all encoders.

    Args:
        width: size of the vectors that the encoder returns.
        freeze: keep the weights, and dropout off, through training.
        lr_multiplier: factor on the learning rate of this encoder's weights.
    """

    pretraining = "scratch"

    def __init__(self, width: int, freeze: bool = False, lr_multiplier: float = 1.0) -> None:
        super().__init__()
        self.width = width
        self.freeze = freeze
        self.lr_multiplier = lr_multiplier

    def processor(self) -> Processor:
        """What makes this encoder's batches; asked for when a loader is made, after ``fit``."""
        raise NotImplementedError

    def fit(self, source: ImageFiles | Features | Strings, rows: Rows) -> None:
        """Check that the dataset is of the kind this encoder reads; learn what is no weight from its training rows.

        Raises:
            InputError: the dataset holds another kind of item.
        """
        raise NotImplementedError

    def embed(self, inputs: Inputs) -> Embeddings:
        """Embeddings of a batch, with gradients as training wants them."""
        raise NotImplementedError

    def forward(self, inputs: Inputs) -> Embeddings:
        """Embeddings of a batch; without gradients where the encoder is frozen."""
        if not self.freeze:
            return self.embed(inputs)
        with torch.no_grad():
            return self.embed(inputs)

    def train(self, mode: bool = True) -> "Encoder":
        """Training mode, which a frozen encoder never enters."""
        return super().train(mode and not self.freeze)

    def freeze_if_asked(self) -> None:
        """Stop gradients of all weights of a frozen encoder; called once they exist."""
        if self.freeze:
            self.requires_grad_(False).eval()


def masked_mean(tokens: Tensor, mask: Tensor) -> Tensor:
    """Mean of the real tokens: `[B, N, D]`, bool `[B, N]` -> `[B, D]`; zeros where no token is real."""
    weights = mask.to(tokens.dtype).unsqueeze(-1)
    return (tokens * weights).sum(1) / weights.sum(1).clamp(min=1)


def masked_max(tokens: Tensor, mask: Tensor) -> Tensor:
    """Maximum by dimension of the real tokens: `[B, N, D]`, bool `[B, N]` -> `[B, D]`; zeros where no token is real."""
    largest = tokens.masked_fill(~mask.unsqueeze(2), -torch.inf).amax(1)
    return largest.masked_fill(~mask.any(1, keepdim=True), 0.0)
