"""CLIP's two towers (Radford et al. 2021), by transformers: published weights, or small ones from scratch.

Pooled vectors lie in the common space, as CLIP compares them; tokens are projected into it in the same way.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import v2

from itmbench.data.corpus import ImageFiles
from itmbench.encoders.base import Encoder, Inputs
from itmbench.encoders.embeddings import Embeddings
from itmbench.encoders.image import PixelProcessor
from itmbench.encoders.text import SPECIAL, LearnedTextEncoder, TextEncoder, transformers_model
from itmbench.encoders.weights import reason
from itmbench.errors import InputError

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
"""Colour statistics that OpenAI's CLIP was trained with, of values from 0 to 1."""


class CLIPImageEncoder(Encoder):
    """Base of CLIP's image encoders: a vision transformer read at its class token, and a projection.

    Args:
        tower: a ``CLIPVisionModel``.
        projection: from its width to that of the common space.
        mean: of each colour, of values from 0 to 1.
        std: as ``mean``.
        **kwargs: arguments of ``Encoder``.
    """

    reads = ImageFiles
    mean: Tensor
    std: Tensor
    temperature = 0.07
    """Initial temperature of a loss on these cosines."""

    def __init__(
        self,
        tower: Any,
        projection: nn.Linear,
        mean: Sequence[float],
        std: Sequence[float],
        **kwargs: Any,
    ) -> None:
        super().__init__(projection.out_features, **kwargs)
        self.tower, self.projection = tower, projection
        for key, value in (("mean", mean), ("std", std)):
            self.register_buffer(key, 255 * torch.tensor(value).view(3, 1, 1), persistent=False)
        self.freeze_if_asked()

    def recipe(self) -> str:
        return f"{super().recipe()} {transformers_model(self.tower)}"

    def embed(self, inputs: Inputs) -> Embeddings:
        """Embeddings of pixels uint8 `[B, 3, S, S]`: pooled the class token, tokens the patches."""
        states = self.tower(pixel_values=(inputs["pixels"] - self.mean) / self.std)
        patches = self.projection(self.tower.post_layernorm(states.last_hidden_state[:, 1:]))
        mask = patches.new_ones(patches.shape[:2], dtype=torch.bool)
        return Embeddings(self.projection(states.pooler_output), patches, mask)


class PretrainedCLIPImageEncoder(CLIPImageEncoder):
    """The image tower of a published CLIP with its own preprocessing: shortest side resized, centre crop.

    Args:
        name: a hub name such as ``openai/clip-vit-base-patch32``, or a local folder with the model, its image
            processor and its tokenizer.
        train_crop: smallest share of the picture that a random training crop keeps; 1 trains on the centre crop.
        **kwargs: arguments of ``Encoder``.

    Raises:
        InputError: there is no such CLIP model, or it cannot be downloaded.
    """

    pretraining = "image-text"

    def __init__(self, name: str = "openai/clip-vit-base-patch32", train_crop: float = 0.8, **kwargs: Any) -> None:
        from transformers import AutoImageProcessor

        model, pictures = _load(name, AutoImageProcessor)
        super().__init__(model.vision_model, model.visual_projection, pictures.image_mean, pictures.image_std, **kwargs)
        self.pictures, self.train_crop = pictures, train_crop
        self.temperature = math.exp(-model.logit_scale.item())

    def processor(self) -> "CheckpointPixels":
        return CheckpointPixels(self.pictures, self.train_crop)


class ScratchCLIPImageEncoder(CLIPImageEncoder):
    """A small vision tower of CLIP with random weights; pictures as ``TimmImageEncoder`` takes them.

    Args:
        dim: size of the common space.
        width: size of the hidden states.
        depth: number of layers.
        heads: number of attention heads.
        patch_size: side of a patch in pixels.
        image_size: side of the square input in pixels.
        train_crop: smallest share of the picture that a random training crop keeps; 1 turns cropping off.
        lr_multiplier: factor on the learning rate of these weights.
    """

    def __init__(
        self,
        dim: int = 256,
        width: int = 128,
        depth: int = 3,
        heads: int = 4,
        patch_size: int = 16,
        image_size: int = 64,
        train_crop: float = 0.8,
        lr_multiplier: float = 1.0,
    ) -> None:
        from transformers import CLIPVisionConfig, CLIPVisionModel

        config = CLIPVisionConfig(patch_size=patch_size, image_size=image_size, **_sizes(width, depth, heads))
        super().__init__(CLIPVisionModel(config), _projection(width, dim), MEAN, STD, lr_multiplier=lr_multiplier)
        self.image_size, self.train_crop = image_size, train_crop

    def processor(self) -> PixelProcessor:
        return PixelProcessor(self.image_size, self.train_crop, train_flip=False)


class CLIPTextEncoder(TextEncoder):
    """Base of CLIP's text encoders: a causal transformer read at the end of the text, and a projection."""

    projection: nn.Linear

    def embed(self, inputs: Inputs) -> Embeddings:
        """Embeddings of ``input_ids`` and ``attention_mask``, int64 `[B, L]`: pooled the token that ends the text."""
        states = self.model(**inputs)
        tokens = self.projection(states.last_hidden_state)
        pooled, mask = self.projection(states.pooler_output), inputs["attention_mask"].bool()
        return Embeddings(pooled, tokens, mask, self.words(inputs))


class PretrainedCLIPTextEncoder(CLIPTextEncoder):
    """The text tower of a published CLIP with its own tokenizer; texts beyond its context length are truncated.

    Args:
        name: as for ``PretrainedCLIPImageEncoder``.
        freeze: keep the weights fixed during training.
        lr_multiplier: factor on the learning rate of these weights.

    Raises:
        InputError: there is no such CLIP model, or it cannot be downloaded.
    """

    pretraining = "image-text"

    def __init__(
        self, name: str = "openai/clip-vit-base-patch32", freeze: bool = False, lr_multiplier: float = 1.0
    ) -> None:
        from transformers import AutoTokenizer

        model, tokenizer = _load(name, AutoTokenizer)
        config = model.config.text_config
        if len(tokenizer) != config.vocab_size:  # without its files, transformers builds an empty one
            raise InputError(
                f"CLIP {name}: the model has {config.vocab_size} tokens and the tokenizer {len(tokenizer)}; "
                "put the files of its own tokenizer (tokenizer.json, or vocab.json and merges.txt) beside it"
            )
        super().__init__(model.text_projection.out_features, freeze, lr_multiplier)
        self.model, self.projection = model.text_model, model.text_projection
        self.tokenizer, self.max_length = tokenizer, config.max_position_embeddings
        self.freeze_if_asked()


class ScratchCLIPTextEncoder(CLIPTextEncoder, LearnedTextEncoder):
    """A small text tower of CLIP with random weights and a WordPiece vocabulary learned from the training texts.

    Args:
        dim: size of the common space.
        width: size of the hidden states.
        depth: number of layers.
        heads: number of attention heads.
        vocab_size: most pieces that the vocabulary may hold.
        max_length: longer texts are cut to this many tokens, special ones included.
        lr_multiplier: factor on the learning rate of these weights.
    """

    def __init__(
        self,
        dim: int = 256,
        width: int = 128,
        depth: int = 2,
        heads: int = 4,
        vocab_size: int = 5000,
        max_length: int = 40,
        lr_multiplier: float = 1.0,
    ) -> None:
        from transformers import CLIPTextConfig, CLIPTextModel

        super().__init__(dim, lr_multiplier=lr_multiplier)
        pad, begin, end = (list(SPECIAL).index(key) for key in ("pad_token", "cls_token", "sep_token"))
        config = CLIPTextConfig(
            vocab_size=vocab_size,
            max_position_embeddings=max_length,
            pad_token_id=pad,
            bos_token_id=begin,
            eos_token_id=end,
            **_sizes(width, depth, heads),
        )
        self.model, self.projection = CLIPTextModel(config), _projection(width, dim)
        self.vocab_size, self.max_length = vocab_size, max_length


@dataclass(frozen=True)
class CheckpointPixels:
    """Pictures -> ``{"pixels": uint8 [B, 3, S, S]}``, cut as a checkpoint's own image processor cuts them."""

    pictures: Any
    train_crop: float

    def __call__(self, items: Sequence[Image.Image], train: bool) -> Inputs:
        if train and self.train_crop < 1:
            size = [self.pictures.crop_size["height"], self.pictures.crop_size["width"]]
            crop = v2.RandomResizedCrop(size, scale=(self.train_crop, 1.0), interpolation=v2.InterpolationMode.BICUBIC)
            items = [crop(image) for image in items]
        # Pixels stay bytes until they are on the device, where they are normalised.
        made = self.pictures(images=list(items), do_rescale=False, do_normalize=False, return_tensors="pt")
        return {"pixels": made["pixel_values"]}


def _sizes(width: int, depth: int, heads: int) -> dict[str, int]:
    """Arguments that the configs of both towers share."""
    return {
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": depth,
        "num_attention_heads": heads,
    }


def _projection(width: int, dim: int) -> nn.Linear:
    """A projection into the common space, initialised as CLIP does."""
    projection = nn.Linear(width, dim, bias=False)
    nn.init.normal_(projection.weight, std=width**-0.5)
    return projection


def _load(name: str, preprocessor: Any) -> tuple[Any, Any]:
    """A ``CLIPModel``, and the tokenizer or image processor that goes with it."""
    from transformers import AutoConfig, CLIPConfig, CLIPModel

    try:
        config = AutoConfig.from_pretrained(name)
        if not isinstance(config, CLIPConfig):
            raise ValueError(f"it is a model of type {config.model_type}, not clip")
        model, found = CLIPModel.from_pretrained(name, dtype=torch.float32, output_loading_info=True)
        if found["missing_keys"]:
            raise ValueError(f"{len(found['missing_keys'])} of its weights are missing")
        return model.train(), preprocessor.from_pretrained(name)  # transformers leaves it in evaluation mode
    except Exception as error:  # transformers, tokenizers and safetensors each raise their own
        raise InputError(
            f"CLIP {name}: cannot be loaded ({reason(error)}); give a hub name that can be reached, "
            "or a local folder with config.json, the weights, preprocessor_config.json and the tokenizer"
        ) from error
