"""Score test items by a fresh instance that has seen nothing else: built anew, with the weights of a checkpoint."""

import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.utilities import move_data_to_device
from torch import Tensor

from itmbench import logs
from itmbench.checkpoint import read_checkpoint
from itmbench.encoders import Embeddings, Encoder
from itmbench.encoders.base import Inputs
from itmbench.here import import_from_here
from itmbench.methods.base import Matcher
from itmbench.runner.lightning import PreparedCLI

Replay = Callable[[Path, Sequence[Any], Sequence[Any]], Tensor]
"""(checkpoint, images, texts as a corpus gives them) -> scores `[n, m]`."""


def by_fresh_instance(make: Callable[[], Matcher]) -> Replay:
    """A replay in this process, by a model that ``make`` builds."""

    def replay(checkpoint: Path, images: Sequence[Any], texts: Sequence[Any]) -> Tensor:
        return fresh_scores(make(), checkpoint, images, texts)

    return replay


def in_fresh_process(arguments: Sequence[str]) -> Replay:
    """A replay in a new process, by the model that options of ``itmbench test`` describe."""

    def replay(checkpoint: Path, images: Sequence[Any], texts: Sequence[Any]) -> Tensor:
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), import_from_here) as pool:
            return pool.submit(_of_arguments, list(arguments), checkpoint, list(images), list(texts)).result()

    return replay


def _of_arguments(arguments: list[str], checkpoint: Path, images: list[Any], texts: list[Any]) -> Tensor:
    for name in ("LOCAL_RANK", "RANK", "WORLD_SIZE"):
        os.environ.pop(name, None)  # this process is not a rank
    with logs.quiet():
        return fresh_scores(PreparedCLI(arguments).model, checkpoint, images, texts)


@torch.no_grad()
def fresh_scores(model: Matcher, checkpoint: Path, images: Sequence[Any], texts: Sequence[Any]) -> Tensor:
    """Scores `[n, m]`, float32, of items that a model with the weights of a checkpoint encodes one by one."""
    model.restored(read_checkpoint(checkpoint)).float().eval()

    def alone(encoder: Encoder, encode: Callable[[Inputs], Embeddings], items: Sequence[Any]) -> Embeddings:
        processor = encoder.processor()
        return Embeddings.cat([encode(move_data_to_device(processor([item], False), model.device)) for item in items])

    return model.score(
        alone(model.image, model.encode_image, images), alone(model.text, model.encode_text, texts)
    ).cpu()
