"""Encoders that are larger than the memory, or faster compiled: a callback, so that it is a line of any config."""

from contextlib import suppress
from typing import Any

import lightning as L
import torch

from itmbench.encoders import Encoder
from itmbench.errors import InputError
from itmbench.methods.base import Matcher


class Backbones(L.Callback):
    """How the networks of both encoders compute; the numbers stay the same up to rounding.

    Args:
        checkpoint: keep only the inputs of each block in the forward pass, and compute the rest again in the backward
            pass: much less memory, about a third more time.
        compile: compile each encoder by ``torch.compile`` with this backend, usually "inductor", which needs a C++
            compiler and takes minutes at first.

    Raises:
        InputError: an encoder has no network that can do this, or torch has no such backend.
    """

    def __init__(self, checkpoint: bool = False, compile: str | None = None) -> None:
        if compile is not None and compile not in torch.compiler.list_backends(()):
            known = ", ".join(torch.compiler.list_backends())
            raise InputError(f"Backbones: torch has no backend {compile!r}; set compile to one of {known}")
        self.checkpoint, self.compile = checkpoint, compile

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        assert isinstance(pl_module, Matcher)
        for encoder in (pl_module.image, pl_module.text):
            if self.checkpoint and stage == "fit":
                _keep_only_inputs(encoder)
            if self.compile is not None:
                encoder.compile(backend=self.compile)


def _keep_only_inputs(encoder: Encoder) -> None:
    """Turn on checkpointing in the network of an encoder, of transformers or timm."""
    network: Any  # what children() gives has attributes of many types
    for network in encoder.children():
        with suppress(AttributeError, AssertionError, ValueError):  # models without it say so in different ways
            if hasattr(network, "gradient_checkpointing_enable"):
                network.gradient_checkpointing_enable({"use_reentrant": False})  # the other kind fails under DDP
            else:
                network.set_grad_checkpointing(True)
            return
    raise InputError(f"Backbones: {type(encoder).__name__} cannot compute its blocks again; leave out checkpoint")
