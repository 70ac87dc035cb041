"""Gather the batches of all devices into one."""

import torch
from lightning import LightningModule
from torch import Tensor

from itmbench.encoders import Embeddings


def gather_rows(module: LightningModule, rows: Tensor) -> Tensor:
    """Concatenate the rows `[B, ...]` of all devices, with gradients; on one device, return them unchanged."""
    if module.trainer.world_size == 1:
        return rows
    return module.all_gather(rows, sync_grads=rows.requires_grad).flatten(0, 1)  # type: ignore[union-attr]


def gather_embeddings(module: LightningModule, embeddings: Embeddings) -> Embeddings:
    """Concatenate the embeddings of all devices, with gradients, padding the tokens to the longest item."""
    if module.trainer.world_size == 1:
        return embeddings
    pooled = gather_rows(module, embeddings.pooled)
    if embeddings.tokens is None or embeddings.mask is None:
        return Embeddings(pooled)
    lengths = gather_rows(module, torch.tensor([embeddings.tokens.shape[1]], device=module.device))
    padded = embeddings.pad(int(lengths.max()))
    assert padded.tokens is not None and padded.mask is not None
    return Embeddings(pooled, gather_rows(module, padded.tokens), gather_rows(module, padded.mask))
