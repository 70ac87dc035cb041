"""The base of all encoders: raw items -> tensors in the loader's workers, tensors -> embeddings on the device."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal, Protocol, get_args

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout

from itmbench.data.corpus import Features, ImageFiles, Rows, Strings
from itmbench.encoders.embeddings import Embeddings
from itmbench.errors import InputError
from itmbench.files import digest
from itmbench.options import Recorded

Pretraining = Literal["scratch", "unimodal", "captions", "image-text"]
PRETRAINING: tuple[Pretraining, ...] = get_args(Pretraining)
"""What weights were pretrained on: nothing, images or text alone, captions of photographs among other texts, image-text
pairs. Rows are ranked only within a class."""

Inputs = dict[str, Tensor]
"""One batch of one modality: the tensors that an encoder's ``forward`` takes, by name."""


class Processor(Protocol):
    """Turns raw items into a batch; small and picklable, because it runs in the loader's workers."""

    def __call__(self, items: Sequence[Any], train: bool) -> Inputs: ...


class Encoder(Recorded, nn.Module):
    """Base of all encoders.

    Args:
        width: size of the vectors it returns.
        freeze: keep the weights fixed and dropout off during training. With pretrained weights every item is encoded
            once, without random crops, and read from disk from then on (`itmbench.encoders.stored`).
        lr_multiplier: factor on the learning rate of this encoder's weights.
        feature_dropout: probability, in training, of dropping a number of the vectors it returns, frozen or not. It
            keeps layers on frozen features from memorising a small dataset.
        centre: subtract from pooled vectors and tokens their means over the training items; for frozen encoders. The
            outputs of a network after ReLU or swish share a large mean, on which a maximum over tokens overfits.

    Raises:
        InputError: ``feature_dropout`` is not a probability below 1, or an encoder that is trained is to be centred.
    """

    pretraining = "scratch"
    reads: type = object
    """The kind of item that it encodes."""
    grid_tokens = False
    """Whether tokens are the cells of a square grid over the whole picture, row by row."""
    word_embedding: nn.Embedding | None = None
    """The vector of every word that a token may be (`Embeddings.words`); None if tokens are not words."""
    pooled_mean: Tensor
    token_mean: Tensor

    def __init__(
        self,
        width: int,
        freeze: bool = False,
        lr_multiplier: float = 1.0,
        feature_dropout: float = 0.0,
        centre: bool = False,
    ) -> None:
        super().__init__()
        if centre and not freeze:
            raise InputError(f"{type(self).__name__}: centre is for frozen encoders; add freeze: true or remove it")
        if not 0 <= feature_dropout < 1:
            raise InputError(f"feature_dropout is {feature_dropout}; give a probability from 0 to below 1")
        self.width = width
        self.freeze = freeze
        self.lr_multiplier = lr_multiplier
        self.feature_dropout = FeatureDropout(feature_dropout)
        self.centre = centre
        if centre:
            self.register_buffer("pooled_mean", torch.zeros(width))
            self.register_buffer("token_mean", torch.zeros(width))
        self._digested: tuple[list[tuple[int, int]], str] = [], ""

    def processor(self) -> Processor:
        """What makes this encoder's batches; valid after ``fit``."""
        raise NotImplementedError

    def fit(self, source: ImageFiles | Features | Strings, rows: Rows) -> None:
        """Check that the encoder can read the dataset; learn what is not a weight, such as a vocabulary.

        Raises:
            InputError: the dataset holds another kind of item.
        """
        if not isinstance(source, self.reads):
            raise InputError(
                f"{type(self).__name__} reads {'words' if self.reads is Strings else 'photographs'}, and this dataset "
                "holds ready-made features or other items: use FeatureEncoder, with a method that takes it"
            )

    def word(self, number: int) -> str | None:
        """The word of a number in `Embeddings.words`; None if it is not a word."""
        return None

    def recipe(self) -> str:
        """Everything but the weights that decides what the encoder computes for an item."""
        return f"{type(self).__module__}.{type(self).__qualname__} {self.processor()!r}"

    def weights_digest(self) -> str:
        """A hash of all that ``embed`` computes with, computed again only once a part was written to or replaced."""
        tensors = {**dict(self.named_parameters()), **dict(self.named_buffers())}
        tensors = {name: value for name, value in tensors.items() if name not in ("pooled_mean", "token_mean")}
        state = [(value.data_ptr(), value._version) for value in tensors.values()]
        if state != self._digested[0]:
            parts = (part for name, value in tensors.items() for part in (name, tensor_digest(value)))
            self._digested = state, digest(*parts, size=16)
        return self._digested[1]

    def embed(self, inputs: Inputs) -> Embeddings:
        """Embeddings of a batch, with gradients."""
        raise NotImplementedError

    def forward(self, inputs: Inputs) -> Embeddings:
        """Embeddings of a batch: without gradients if the encoder is frozen, unchanged if they were stored."""
        items = self._embed_or_read(inputs)
        if self.centre:
            tokens = None if items.tokens is None else items.tokens - self.token_mean
            items = replace(items, pooled=items.pooled - self.pooled_mean, tokens=tokens)
        tokens = None if items.tokens is None else self.feature_dropout(items.tokens)
        return replace(items, pooled=self.feature_dropout(items.pooled), tokens=tokens)

    def _embed_or_read(self, inputs: Inputs) -> Embeddings:
        if "pooled" in inputs:
            if "tokens" not in inputs:
                return Embeddings(inputs["pooled"].float())
            return Embeddings(inputs["pooled"].float(), inputs["tokens"].float(), inputs["mask"], inputs.get("words"))
        if not self.freeze:
            return self.embed(inputs)
        with torch.no_grad():
            return self.embed(inputs)

    def train(self, mode: bool = True) -> "Encoder":
        """Set training mode; a frozen encoder stays in evaluation mode, but for its ``feature_dropout``."""
        super().train(mode and not self.freeze)
        self.feature_dropout.train(mode)
        return self

    def freeze_if_asked(self) -> None:
        """Turn off the gradients of a frozen encoder; call once the weights exist."""
        if self.freeze:
            self.requires_grad_(False)
            super().train(False)
            self.feature_dropout.train(True)


class FeatureDropout(nn.Module):
    """Drop a share of the values in training, also of a frozen encoder.

    A module of its own, because after a validation Lightning restores the ``training`` flags of modules and nothing
    else.
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, values: Tensor) -> Tensor:
        """Drop values of any shape, and scale up the rest."""
        return drop(values, self.share) if self.training and self.share else values


def drop(values: Tensor, share: float) -> Tensor:
    """Set a random share of the values to 0 and scale up the rest, as ``torch.nn.functional.dropout`` does.

    On a CPU its draws take longer than most layers. This function makes the same draws in half the time, on every
    processor (torch draws other numbers on Intel's).
    """
    if values.device.type != "cpu":
        return dropout(values, share)
    factors = torch.empty(values.shape, dtype=values.dtype)
    for part in factors.view(-1).split(1 << 14):  # what is drawn fits the cache
        torch.lt(torch.rand(part.shape, dtype=torch.float64), 1 - share, out=part)
    return values * factors.div_(1 - share)


def tensor_digest(value: Tensor) -> str:
    """A hash of a tensor's type, shape and content, on any device."""
    content = value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
    return digest(str(value.dtype), str(tuple(value.shape)), content, size=16)


def masked_mean(tokens: Tensor, mask: Tensor) -> Tensor:
    """Mean of the real tokens: `[B, N, D]`, bool `[B, N]` -> `[B, D]`; zeros where no token is real."""
    weights = mask.to(tokens.dtype).unsqueeze(-1)
    return (tokens * weights).sum(1) / weights.sum(1).clamp(min=1)


def masked_max(tokens: Tensor, mask: Tensor) -> Tensor:
    """Maximum by dimension of the real tokens: `[B, N, D]`, bool `[B, N]` -> `[B, D]`; zeros where no token is real."""
    largest = (tokens + hiding(mask).to(tokens.dtype).unsqueeze(2)).amax(1)
    return largest.masked_fill(~mask.any(1, keepdim=True), 0.0)


def hiding(mask: Tensor) -> Tensor:
    """A float32 term that hides padding: 0 for real tokens, -1e30 for padding. Adding is much faster than filling."""
    return ~mask * -1e30


def padded(mask: Tensor) -> bool:
    """Whether some token is padding; on a GPU always true, because reading the mask would make every step wait."""
    return mask.device.type != "cpu" or not bool(mask.all())
