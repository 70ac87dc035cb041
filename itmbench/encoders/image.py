"""Pixels -> tokens, by any model of timm: patches of a transformer, or grid cells of a convolutional network."""

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d
from torchvision.transforms import v2

from itmbench.data.corpus import ImageFiles
from itmbench.encoders.base import Encoder, Inputs
from itmbench.encoders.embeddings import Embeddings
from itmbench.encoders.weights import load_weights, reason
from itmbench.errors import InputError, did_you_mean
from itmbench.options import is_restoring

TINY = {"patch_size": 16, "embed_dim": 128, "depth": 3, "num_heads": 4}
"""The model named "tiny": a vision transformer small enough to train from scratch on a CPU."""


class TimmImageEncoder(Encoder):
    """Any image model of timm; by default a tiny vision transformer, trained from scratch.

    Tokens are the patches of a transformer, without its class and register tokens, or the cells of the last feature
    map of a convolutional or hybrid network, row by row. Both have the width of the pooled vector.

    Args:
        name: a timm model such as ``vit_base_patch16_224`` or ``tf_efficientnet_lite2``, or "tiny": a transformer of 3
            layers and width 128, without published weights.
        pretrained: load timm's published weights.
        checkpoint: load the weights from this file instead (``.safetensors``, ``.pth``); implies ``pretrained``.
        image_size: side of the square input in pixels; position embeddings are resampled to it.
        pool: average the tokens to a grid of this many rows and columns; None keeps them all.
        train_crop: smallest share of the picture that a random training crop keeps; 1 turns cropping off.
        train_flip: mirror half of the training pictures. Off by default, because captions say left and right.
        model_args: further arguments of ``timm.create_model``.
        **kwargs: arguments of ``Encoder``.

    Raises:
        InputError: timm has no such model, or its weights cannot be loaded or do not fit.
    """

    reads = ImageFiles
    grid_tokens = True
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        name: str = "tiny",
        pretrained: bool = False,
        checkpoint: str | None = None,
        image_size: int = 64,
        pool: int | None = None,
        train_crop: float = 0.8,
        train_flip: bool = False,
        model_args: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        model_args = {**(TINY if name == "tiny" else {}), **(model_args or {})}
        weights = (False, None) if is_restoring() else (pretrained, checkpoint)
        model = _create(name, *weights, image_size, **model_args)
        super().__init__(model.num_features, **kwargs)
        self.model = model
        if pretrained or checkpoint:
            self.pretraining = "image-text" if any(word in name for word in ("clip", "siglip")) else "unimodal"
        self.image_size, self.train_crop, self.train_flip, self.pool = image_size, train_crop, train_flip, pool
        self.architecture = f"timm {version('timm')} {name} {model_args} {pool}"
        for key in ("mean", "std"):
            self.register_buffer(key, 255 * torch.tensor(model.pretrained_cfg[key]).view(3, 1, 1), persistent=False)
        self.freeze_if_asked()

    def recipe(self) -> str:
        return f"{super().recipe()} {self.architecture}"

    def processor(self) -> "PixelProcessor":
        return PixelProcessor(self.image_size, self.train_crop, self.train_flip)

    def embed(self, inputs: Inputs) -> Embeddings:
        """Embeddings of pixels uint8 `[B, 3, S, S]`: pooled as the model pools, or the mean of the tokens.

        Raises:
            InputError: ``pool`` exceeds the grid.
        """
        states = self.model.forward_features((inputs["pixels"] - self.mean) / self.std)
        grid = _grid(states, self.model)
        pooled = self.model.forward_head(states, pre_logits=True)
        if pooled.shape[1] != self.width:  # some heads widen the features first
            pooled = grid.mean((2, 3))
        if self.pool is not None:
            if not 1 <= self.pool <= grid.shape[2]:
                raise InputError(f"image encoder: pool is {self.pool}; give 1 to {grid.shape[2]}, the side of its grid")
            grid = adaptive_avg_pool2d(grid, self.pool)
        tokens = grid.flatten(2).transpose(1, 2)
        return Embeddings(pooled, tokens, tokens.new_ones(tokens.shape[:2], dtype=torch.bool))


def _grid(states: Tensor, model: Any) -> Tensor:
    """The last features of a timm model as a square grid `[B, D, H, H]`."""
    if states.ndim == 3:
        patches = states[:, getattr(model, "num_prefix_tokens", 0) :]
        return patches.transpose(1, 2).unflatten(2, (math.isqrt(patches.shape[1]), -1))
    return states.permute(0, 3, 1, 2) if getattr(model, "output_fmt", "NCHW") == "NHWC" else states


@dataclass(frozen=True)
class PixelProcessor:
    """Pictures -> ``{"pixels": uint8 [B, 3, S, S]}``; the whole picture is resized to a square, not cropped."""

    image_size: int
    train_crop: float
    train_flip: bool

    def __call__(self, items: Sequence[Image.Image], train: bool) -> Inputs:
        size = [self.image_size, self.image_size]
        steps: list[Any] = [v2.Resize(size)]
        if train:
            if self.train_crop < 1:
                steps = [v2.RandomResizedCrop(size, scale=(self.train_crop, 1.0))]
            if self.train_flip:
                steps.append(v2.RandomHorizontalFlip())
        transform = v2.Compose([*steps, v2.PILToTensor()])
        return {"pixels": torch.stack([transform(image) for image in items])}


def _create(name: str, pretrained: bool, checkpoint: str | None, image_size: int, **args: Any) -> Any:
    """A timm model without a classifier head."""
    timm = _import_timm()
    if name == "tiny" and pretrained and checkpoint is None:
        raise InputError("image encoder tiny: has no published weights; name a timm model, or give a checkpoint")
    known = "vit_tiny_patch16_224" if name == "tiny" else name
    try:
        config = timm.get_pretrained_cfg(known, allow_unregistered=True)
        if config is not None and config.fixed_input_size:  # position embeddings, or windows, of this size
            args["img_size"] = image_size
        model = timm.create_model(known, pretrained=pretrained and checkpoint is None, num_classes=0, **args)
    except Exception as error:  # timm, the hub client and torch each raise their own
        names = [*timm.list_models(), *timm.list_pretrained()]
        problem, advice = "cannot be made", "change its options"
        if isinstance(error, OSError):
            problem, advice = "its weights could not be downloaded", "give a file of them as checkpoint="
        elif known not in names:
            advice = f"{did_you_mean(known, names)}choose one of timm.list_models() or timm.list_pretrained()"
        raise InputError(f"image encoder {name}: {problem} ({reason(error)}); {advice}") from error
    if checkpoint is not None:
        load_weights(model, checkpoint, f"the image encoder {name}")
    return model


def _import_timm() -> Any:
    """Import timm, but not wandb, which only its training script needs and which takes seconds."""
    if "wandb" in sys.modules:
        import timm
    else:
        sys.modules["wandb"] = None  # type: ignore[assignment]  # makes its import fail
        try:
            import timm
        finally:
            del sys.modules["wandb"]
    return timm
