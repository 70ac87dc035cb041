"""Encoders: pixels, words or ready-made features -> pooled vectors and tokens."""

from itmbench.encoders.base import Encoder, masked_max, masked_mean
from itmbench.encoders.clip import (
    CLIPImageEncoder,
    CLIPTextEncoder,
    PretrainedCLIPImageEncoder,
    PretrainedCLIPTextEncoder,
    ScratchCLIPImageEncoder,
    ScratchCLIPTextEncoder,
)
from itmbench.encoders.embeddings import Embeddings
from itmbench.encoders.features import FeatureEncoder
from itmbench.encoders.image import TimmImageEncoder
from itmbench.encoders.text import PretrainedTextEncoder, ScratchTextEncoder, TextEncoder

__all__ = [
    "CLIPImageEncoder",
    "CLIPTextEncoder",
    "Embeddings",
    "Encoder",
    "FeatureEncoder",
    "PretrainedCLIPImageEncoder",
    "PretrainedCLIPTextEncoder",
    "PretrainedTextEncoder",
    "ScratchCLIPImageEncoder",
    "ScratchCLIPTextEncoder",
    "ScratchTextEncoder",
    "TextEncoder",
    "TimmImageEncoder",
    "masked_max",
    "masked_mean",
]
