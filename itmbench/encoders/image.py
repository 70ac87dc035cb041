"""Pixels -> tokens, by any vision transformer of timm."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

from itmbench.data.corpus import ImageFiles
from itmbench.encoders.base import Encoder, Inputs
from itmbench.encoders.embeddings import Embeddings
from itmbench.errors import InputError
from itmbench.options import is_restoring

TINY = {"patch_size": 16, "embed_dim": 128, "depth": 3, "num_heads": 4}
"""The model named "tiny": a vision transformer small enough to train from scratch on a CPU."""


class TimmImageEncoder(Encoder):
    """Any vision transformer of timm; by default a tiny one, trained from scratch.

    Args:
        name: a timm model such as ``vit_base_patch16_224``, or "tiny": 3 layers of width 128, no published weights.
        pretrained: load timm's published weights.
        checkpoint: load the weights from this file instead (``.safetensors``, ``.pth``); implies ``pretrained``.
        image_size: side of the square input in pixels; position embeddings are resampled to it.
        train_crop: smallest share of the picture that a random training crop keeps; 1 turns cropping off.
        train_flip: mirror half of the training pictures. Off by default, because captions say left and right.
        model_args: further arguments of ``timm.create_model``.
        freeze: keep the weights fixed during training.
        lr_multiplier: factor on the learning rate of these weights.

    Raises:
        InputError: timm has no such vision transformer, or its weights cannot be loaded.
    """

    reads = ImageFiles
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        name: str = "tiny",
        pretrained: bool = False,
        checkpoint: str | None = None,
        image_size: int = 64,
        train_crop: float = 0.8,
        train_flip: bool = False,
        model_args: dict[str, Any] | None = None,
        freeze: bool = False,
        lr_multiplier: float = 1.0,
    ) -> None:
        model_args = {**(TINY if name == "tiny" else {}), **(model_args or {})}
        weights = (False, None) if is_restoring() else (pretrained, checkpoint)
        model = _create(name, *weights, img_size=image_size, **model_args)
        super().__init__(model.num_features, freeze, lr_multiplier)
        self.model = model
        if pretrained or checkpoint:
            self.pretraining = "image-text" if any(word in name for word in ("clip", "siglip")) else "unimodal"
        self.image_size, self.train_crop, self.train_flip = image_size, train_crop, train_flip
        self.architecture = f"timm {version('timm')} {name} {model_args}"
        for key in ("mean", "std"):
            self.register_buffer(key, 255 * torch.tensor(model.pretrained_cfg[key]).view(3, 1, 1), persistent=False)
        self.freeze_if_asked()

    def recipe(self) -> str:
        return f"{super().recipe()} {self.architecture}"

    def processor(self) -> "PixelProcessor":
        return PixelProcessor(self.image_size, self.train_crop, self.train_flip)

    def embed(self, inputs: Inputs) -> Embeddings:
        """Embeddings of pixels uint8 `[B, 3, S, S]`: pooled as the model pools, tokens its patches."""
        states = self.model.forward_features((inputs["pixels"] - self.mean) / self.std)
        tokens = states[:, self.model.num_prefix_tokens :]
        return Embeddings(
            self.model.forward_head(states, pre_logits=True),
            tokens,
            tokens.new_ones(tokens.shape[:2], dtype=torch.bool),
        )


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


def _create(name: str, pretrained: bool, checkpoint: str | None, **args: Any) -> Any:
    """A timm model without a classifier head."""
    timm = _import_timm()
    if name == "tiny" and pretrained and checkpoint is None:
        raise InputError("image encoder tiny: has no published weights; name a timm model, or give a checkpoint")
    if checkpoint is not None and not Path(checkpoint).is_file():
        raise InputError(f"{checkpoint}: no such checkpoint file for the image encoder {name}")
    overlay = {"file": checkpoint} if checkpoint else None
    try:
        model = timm.create_model(
            "vit_tiny_patch16_224" if name == "tiny" else name,
            pretrained=pretrained or checkpoint is not None,
            pretrained_cfg_overlay=overlay,
            num_classes=0,
            **args,
        )
    except Exception as error:  # timm, the hub client and torch each raise their own
        reason = " ".join(str(error).split())
        raise InputError(
            f"image encoder {name}: cannot be made ({reason[:200]}); choose one of timm.list_models('vit*'), "
            "and if its weights cannot be downloaded, give their file as checkpoint="
        ) from error
    if not hasattr(model, "num_prefix_tokens"):
        raise InputError(f"image encoder {name}: not a vision transformer; choose one of timm.list_models('vit*')")
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
