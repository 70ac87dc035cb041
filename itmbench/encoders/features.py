"""Ready-made features -> tokens: regions, bags of words, anything that another model has computed."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from itmbench.data.corpus import Features, ImageFiles, Rows, Strings
from itmbench.encoders.base import Encoder, Inputs, Pretraining, masked_mean
from itmbench.encoders.embeddings import Embeddings
from itmbench.errors import InputError


class FeatureEncoder(Encoder):
    """A linear layer, or an MLP, on ready-made features; for images and for texts.

    The pooled vector is the mean of the real tokens. A feature vector `[D]` without tokens counts as one token.

    Args:
        input_dim: size of the features on disk; by default the size that ``fit`` finds, which then creates the first
            layer.
        width: size of the vectors returned.
        hidden: widths of the hidden layers (ReLU); none by default.
        dropout: probability, in training, of dropping a hidden unit.
        lr_multiplier: factor on the learning rate of these weights.
        pretraining: what the model that extracted the features was trained on; "scratch" for plain counts such as bags
            of words.
    """

    def __init__(
        self,
        input_dim: int | None = None,
        width: int = 1024,
        hidden: Sequence[int] = (),
        dropout: float = 0.0,
        lr_multiplier: float = 1.0,
        pretraining: Pretraining = "unimodal",
    ) -> None:
        super().__init__(width, lr_multiplier=lr_multiplier)
        self.pretraining = pretraining
        self.input_dim = input_dim
        layers: list[nn.Module] = []
        for size in (*hidden, width):
            linear = nn.LazyLinear(size) if input_dim is None else nn.Linear(input_dim, size)
            layers += [linear, nn.ReLU(), nn.Dropout(dropout)]
            input_dim = size
        self.layers = nn.Sequential(*layers[:-2])

    def drop_layers(self) -> None:
        """Return the features unchanged; ``fit`` then sets ``width`` to their size."""
        self.layers = nn.Sequential()

    @property
    def feature_width(self) -> int | None:
        """Size of the features that it reads; None while that is not known."""
        weight = getattr(self.layers[0], "weight", None) if len(self.layers) else None
        if self.input_dim is None and isinstance(weight, Tensor) and not isinstance(weight, UninitializedParameter):
            return weight.shape[1]  # of a checkpoint
        return self.input_dim

    def processor(self) -> "FeatureProcessor":
        return FeatureProcessor()

    def fit(self, source: ImageFiles | Features | Strings, rows: Rows) -> None:
        if not isinstance(source, Features):
            raise InputError(
                "FeatureEncoder reads ready-made features, and this dataset holds photographs or words: use "
                "TimmImageEncoder for images, PretrainedTextEncoder or ScratchTextEncoder for texts"
            )
        found = source.array.shape[-1]
        if self.input_dim not in (None, found):
            raise InputError(
                f"FeatureEncoder: the features are {found} wide; set input_dim to that, not {self.input_dim}, "
                "or leave it out"
            )
        self.input_dim = found
        if len(self.layers) == 0:
            self.width = found
        elif isinstance(first := self.layers[0], nn.LazyLinear):
            first(torch.zeros(1, found, device=first.weight.device, dtype=first.weight.dtype))  # creates its weights

    def embed(self, inputs: Inputs) -> Embeddings:
        """Embeddings of ``features`` float32 `[B, T, D]` with ``mask`` bool `[B, T]`."""
        tokens = self.layers(inputs["features"])
        return Embeddings(masked_mean(tokens, inputs["mask"]), tokens, inputs["mask"])


class FeatureProcessor:
    """Features and masks of items -> ``{"features": [B, T, D], "mask": [B, T]}``."""

    def __call__(self, items: Sequence[tuple[Any, Any]], train: bool) -> Inputs:
        features = torch.from_numpy(np.stack([array for array, _ in items]))
        features = features.unsqueeze(1) if features.ndim == 2 else features
        if items[0][1] is None:
            return {"features": features, "mask": torch.ones(features.shape[:2], dtype=torch.bool)}
        return {"features": features, "mask": torch.from_numpy(np.stack([mask for _, mask in items]))}
