"""Score rows of items against columns of items so that equal items score equal to the last bit.

A matrix product may round the same pair differently in the middle of a tile and at its edge. This would break ties at
random and credit a model that maps everything to one point. So duplicates are found first, by content, and each
distinct pair is scored only once.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from itmbench.encoders.embeddings import Embeddings, Items
from itmbench.errors import InputError
from itmbench.evaluation.ranking import not_finite

Vectors = Embeddings | Tensor | NDArray[Any]
"""What to retrieve: vectors `[N, D]`, or embeddings with the tokens that a scorer needs."""

Scorer = Callable[[Embeddings, Embeddings], Tensor]
"""(rows `[bi]`, columns `[bj]`) -> scores `[bi, bj]`, higher is better; no pair may influence another."""

Name = Callable[[int], str]
"""Names the item of a row in errors."""

# Numbers processed at once when rows are normalised, hashed and compared: larger temporary tensors fragment memory.
_CHUNK = 1 << 17

# Pairs scored at once. A tile of cosines fits the CPU cache, or fills a GPU. Other scorers may hold regions x words x
# channels for every pair.
_COSINE_TILE = {"cpu": 1 << 20}
_COSINE_TILE_ELSEWHERE = 1 << 24
_SCORER_TILE = 1 << 15


def as_embeddings(items: Vectors, name: Name) -> Embeddings:
    """Detached embeddings with float32 pooled vectors, from vectors `[N, D]` or embeddings.

    Raises:
        InputError: the table is empty, not `[N, D]` or not of real numbers, or a vector is NaN, infinite or too small.
    """
    table = items if isinstance(items, Embeddings) else Embeddings(as_tensor(items, "embeddings"))
    pooled = table.pooled.detach().float()
    if pooled.ndim != 2 or not pooled.numel():
        raise InputError(f"embeddings of shape {list(pooled.shape)}: give a table [N, D] with at least one item")
    finite = pooled.amax(dim=1).isfinite() & pooled.amin(dim=1).isfinite()  # both propagate NaN
    if not bool(finite.all()):
        bad = name(int(finite.int().argmin()))
        raise InputError(f"embedding of {bad}: NaN or infinite; check the model for overflow or division by zero")
    if table.pooled.dtype == torch.float64:  # below the smallest normal number digits are lost
        lost = (pooled.abs().amax(dim=1) < torch.finfo(torch.float32).tiny) & (table.pooled != 0).any(dim=1)
        if bool(lost.any()):
            raise InputError(f"embedding of {name(int(lost.int().argmax()))}: too small for 32 bits; scale them all")
    return Embeddings(pooled, table.tokens, table.mask)


def as_tensor(values: Any, what: str) -> Tensor:
    """A detached tensor of real numbers from a tensor, an array or nested lists, called ``what`` in errors.

    Raises:
        InputError: they are not real numbers, or their rows differ in length.
    """
    if isinstance(values, Tensor):
        if values.is_complex() or values.layout != torch.strided or values.is_meta:
            raise InputError(f"{what}: complex, sparse or without data; give a dense table of real numbers")
        return values.detach()
    if np.ma.is_masked(values):
        raise InputError(f"{what}: masked values; give all of them, or leave their items out")
    try:
        array = np.asarray(values)
    except ValueError:
        raise InputError(f"{what}: rows of different lengths; give a rectangular table") from None
    if array.dtype.kind not in "biuf":
        raise InputError(f"{what}: values of type {array.dtype}; give real numbers")
    if array.dtype.kind == "u" and array.size and array.max() > np.iinfo(np.int64).max:
        raise InputError(f"{what}: numbers from 2**63 on; give them as floating-point numbers")
    # In a type that torch computes with, contiguous and writable (a memory-mapped file is not).
    kind = np.dtype(np.int64) if array.dtype.kind == "u" else array.dtype.newbyteorder("=")
    kind = np.dtype(np.float64) if kind.itemsize > 8 else kind
    return torch.from_numpy(np.require(array, kind, ["C", "W"]))


def comparable(rows: Items, columns: Items, scorer: Scorer | None) -> tuple[Items, Items, Scorer, int]:
    """Prepare two sides for scoring: their embeddings, a scorer, and the number of pairs per tile.

    Without a scorer, these are unit vectors and their dot product.

    Raises:
        InputError: there is no scorer and the two sides differ in dimension.
    """
    if scorer is not None:
        return rows, columns, scorer, _SCORER_TILE
    sizes = rows.pooled.shape[1], columns.pooled.shape[1]
    if sizes[0] != sizes[1]:
        raise InputError(f"embeddings of {sizes[0]} and {sizes[1]} dimensions have no cosine; give both the same size")
    return _unit(rows), _unit(columns), _dot, _COSINE_TILE.get(rows.pooled.device.type, _COSINE_TILE_ELSEWHERE)


def score(scorer: Scorer, rows: Items, columns: Items, name: Name) -> Tensor:
    """Score all rows against all columns, float32 `[len(rows), len(columns)]`.

    Raises:
        InputError: the scorer is no function, returns another shape, or a NaN or infinite score (names the row).
    """
    if scorer is _dot:
        return _dot(rows, columns)  # products of finite unit vectors are finite
    if not callable(scorer):
        raise InputError(
            f"scorer: {scorer!r:.60} is not a function of two Embeddings; give one, or None for the cosine"
        )
    scores = as_tensor(_scored(scorer, rows.on_one_device(), columns.on_one_device()), "scores").float()
    if scores.shape != (len(rows), len(columns)):
        raise InputError(
            f"the scorer returned {list(scores.shape)} for {len(rows)} x {len(columns)} items; "
            "it must return one score per pair"
        )
    if not (bool(scores.amax().isfinite()) and bool(scores.amin().isfinite())):  # both propagate NaN
        raise not_finite(name(int(scores.isfinite().all(dim=1).int().argmin())))
    return scores


def _scored(scorer: Scorer, rows: Embeddings, columns: Embeddings) -> Tensor:
    """Run the scorer, splitting the tile in halves while it does not fit into GPU memory."""
    try:
        return scorer(rows, columns)
    except torch.OutOfMemoryError:
        if len(rows) == len(columns) == 1:
            raise
    torch.cuda.empty_cache()  # outside the handler, whose traceback holds references to the scorer's tensors
    if len(columns) > 1:
        half = len(columns) // 2
        parts = [_scored(scorer, rows, columns[part]) for part in (slice(0, half), slice(half, None))]
        return torch.cat(parts, dim=1)
    half = len(rows) // 2
    return torch.cat([_scored(scorer, rows[part], columns) for part in (slice(0, half), slice(half, None))])


def distinct(items: Items) -> tuple[Items, Tensor]:
    """Remove duplicates, keeping the order of first appearance; tokens are read a few at a time and not copied.

    Two items are equal if pooled vector, tokens and mask are (0.0 equals -0.0).

    Returns:
        The distinct items, and the index of each item among them, int64 `[N]`.
    """
    index = torch.arange(len(items), device=items.pooled.device)
    step = max(1, _CHUNK // sum(part.shape[1] for part in _parts(items[:1])))
    blocks = (items[start : start + step] for start in range(0, len(items), step))
    codes = torch.cat(
        [torch.stack([_hashes(part, seed) for seed, part in enumerate(_parts(block))]).sum(0) for block in blocks]
    )
    values, group = codes.unique(return_inverse=True)
    first = torch.full_like(values, len(items)).scatter_reduce_(0, group, index, "amin")[group]
    # Equal hashes do not prove equality: an item that differs from the first of its group is kept.
    repeats = (first != index).nonzero().squeeze(1)
    for rows in repeats.split(step):
        for part, other in zip(_parts(items[rows]), _parts(items[first[rows]]), strict=True):
            differs = (part != other).any(dim=1)
            first[rows[differs]] = rows[differs]
    kept = first == index
    place = (kept.cumsum(0) - 1)[first]
    return (items if bool(kept.all()) else items.select(kept.nonzero().squeeze(1))), place


def _parts(items: Embeddings) -> list[Tensor]:
    """Pooled vectors, tokens and masks on one device, `[N, W]` each."""
    items = items.on_one_device()
    return [part.flatten(1) for part in (items.pooled, items.tokens, items.mask) if part is not None]


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Compute float32 products in float32, whatever the autocast and matmul precision of training."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(before)


def _dot(rows: Items, columns: Items) -> Tensor:
    with full_precision(rows.pooled.device):
        return rows.pooled @ columns.pooled.T


def _unit(items: Items) -> Embeddings:
    """Pooled vectors at unit length; a zero vector stays zero and has cosine 0 with everything."""
    unit = torch.empty_like(items.pooled)
    step = max(1, _CHUNK // unit.shape[1])
    for vectors, out in zip(items.pooled.split(step), unit.split(step), strict=True):
        exact = vectors.double()  # the square of a large float32 is infinite
        out.copy_(exact / exact.norm(dim=1, keepdim=True).clamp(min=1e-300))
    return Embeddings(unit)


def _hashes(rows: Tensor, seed: int) -> Tensor:
    """Hash each row of `[N, W]` to an int64: the bits of its numbers times random odd numbers, summed."""
    generator = torch.Generator().manual_seed(seed)
    weights = torch.randint(-(2**62), 2**62, (rows.shape[1],), generator=generator).to(rows.device) * 2 + 1
    codes = torch.empty(len(rows), dtype=torch.int64, device=rows.device)
    step = max(1, _CHUNK // rows.shape[1])
    for block, out in zip(rows.detach().split(step), codes.split(step), strict=True):
        bits = (block.float() + 0.0).contiguous().view(torch.int32)  # -0.0 + 0.0 is 0.0
        torch.sum(bits.long().mul_(weights), dim=1, out=out)
    return codes
