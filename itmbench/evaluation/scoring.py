"""Scores of rows of items against columns of items, such that equal items score equal to the last bit.

A matrix product may round the same pair differently in the middle of a tile and at its edge. That would break ties at
random, and a model that maps everything to one point would be given credit for it. So equal items are found first, by
their contents, and each distinct pair is scored in one place only.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from itmbench.encoders.embeddings import Embeddings
from itmbench.errors import InputError
from itmbench.evaluation.ranking import not_finite

Vectors = Embeddings | Tensor | NDArray[Any]
"""What to retrieve: vectors `[N, D]`, or embeddings with the tokens that a scorer needs."""

Scorer = Callable[[Embeddings, Embeddings], Tensor]
"""(rows `[bi]`, columns `[bj]`) -> scores `[bi, bj]`, higher is better; no pair may influence another."""

Name = Callable[[int], str]
"""What to call the item of a row in an error."""

# Numbers that are looked at together when rows are normalised, hashed and compared.
_CHUNK = 1 << 20

# Pairs scored at once. Cosines: a tile stays near the processor's cache, or fills a GPU. Any other scorer may hold
# regions x words x channels for every pair.
_COSINE_TILE = {"cpu": 1 << 20}
_COSINE_TILE_ELSEWHERE = 1 << 24
_SCORER_TILE = 1 << 15


def as_embeddings(items: Vectors, name: Name) -> Embeddings:
    """Detached embeddings with float32 pooled vectors.

    Args:
        items: vectors `[N, D]`, or embeddings.
        name: what to call an item in an error.

    Raises:
        InputError: the table is empty, is not `[N, D]`, holds no real numbers, or a vector is NaN or infinite.
    """
    table = items if isinstance(items, Embeddings) else Embeddings(as_tensor(items, "embeddings"))
    pooled = table.pooled.detach().float()
    if pooled.ndim != 2 or not pooled.numel():
        raise InputError(f"embeddings of shape {list(pooled.shape)}: give a table [N, D] of at least one item")
    finite = pooled.amax(dim=1).isfinite() & pooled.amin(dim=1).isfinite()  # NaN wins in both
    if not bool(finite.all()):
        bad = name(int(finite.int().argmin()))
        raise InputError(f"embedding of {bad}: NaN or infinite; check the model for overflow or division by zero")
    return Embeddings(pooled, table.tokens, table.mask)


def as_tensor(values: Any, what: str) -> Tensor:
    """A tensor of real numbers from a tensor, an array or nested lists.

    Args:
        values: of any shape.
        what: what to call them in an error.

    Raises:
        InputError: they are not real numbers, or their rows differ in length.
    """
    if isinstance(values, Tensor):
        if values.is_complex():
            raise InputError(f"{what}: complex numbers; give real ones")
        return values
    try:
        array = np.asarray(values)
    except ValueError:
        raise InputError(f"{what}: rows of different lengths; give a rectangular table") from None
    if array.dtype.kind not in "biuf":
        raise InputError(f"{what}: values of type {array.dtype}; give real numbers")
    # In a type that torch computes with, contiguous and writable (a memory-mapped file is not).
    kind = np.dtype(np.int64) if array.dtype.kind == "u" else array.dtype.newbyteorder("=")
    return torch.from_numpy(np.require(array, kind, ["C", "W"]))


def comparable(
    rows: Embeddings, columns: Embeddings, scorer: Scorer | None
) -> tuple[Embeddings, Embeddings, Scorer, int]:
    """What to score, with what, and how many pairs at once. Without a scorer: unit vectors and their dot products.

    Raises:
        InputError: without a scorer, the two sides' vectors differ in length.
    """
    if scorer is not None:
        return rows, columns, scorer, _SCORER_TILE
    sizes = rows.pooled.shape[1], columns.pooled.shape[1]
    if sizes[0] != sizes[1]:
        raise InputError(f"embeddings of {sizes[0]} and {sizes[1]} dimensions have no cosine; project both to one size")
    return _unit(rows), _unit(columns), _dot, _COSINE_TILE.get(rows.pooled.device.type, _COSINE_TILE_ELSEWHERE)


def score(scorer: Scorer, rows: Embeddings, columns: Embeddings, name: Name) -> Tensor:
    """Scores of all rows against all columns, float32 `[len(rows), len(columns)]`.

    Raises:
        InputError: the scorer gave another shape, or a NaN or infinite score; names the row.
    """
    if scorer is _dot:
        return _dot(rows, columns)  # products of finite unit vectors are finite
    scores = _scored(scorer, rows, columns).detach().float()
    if scores.shape != (len(rows), len(columns)):
        raise InputError(
            f"the scorer gave {list(scores.shape)} for {len(rows)} x {len(columns)} items; "
            "it must return one score for every pair"
        )
    if not (bool(scores.amax().isfinite()) and bool(scores.amin().isfinite())):  # NaN wins in both
        raise not_finite(name(int(scores.isfinite().all(dim=1).int().argmin())))
    return scores


def _scored(scorer: Scorer, rows: Embeddings, columns: Embeddings) -> Tensor:
    """The scorer's answer, in halves where the memory of the GPU does not suffice for the whole."""
    try:
        return scorer(rows, columns)
    except torch.OutOfMemoryError:
        if len(rows) == len(columns) == 1:
            raise
    torch.cuda.empty_cache()  # outside the handler, which keeps what the scorer held
    if len(columns) > 1:
        half = len(columns) // 2
        parts = [_scored(scorer, rows, columns[some]) for some in (slice(0, half), slice(half, None))]
        return torch.cat(parts, dim=1)
    half = len(rows) // 2
    return torch.cat([_scored(scorer, rows[some], columns) for some in (slice(0, half), slice(half, None))])


def distinct(items: Embeddings) -> tuple[Embeddings, Tensor]:
    """The items without repetitions, in order of first appearance, and where each item is among them, int64 `[N]`.

    Two items are equal if all their numbers are (0.0 equals -0.0): pooled vector, tokens and mask.
    """
    parts = [part.flatten(1) for part in (items.pooled, items.tokens, items.mask) if part is not None]
    index = torch.arange(len(items), device=items.pooled.device)
    codes = torch.stack([_hashes(part, seed) for seed, part in enumerate(parts)]).sum(dim=0)
    values, group = codes.unique(return_inverse=True)
    first = torch.full_like(values, len(items)).scatter_reduce_(0, group, index, "amin")[group]
    # Equal hashes only suggest equal rows: whoever differs from the first of its group stands for itself.
    repeats = (first != index).nonzero().squeeze(1)
    for part in parts:
        for some in repeats.split(max(1, _CHUNK // part.shape[1])):
            differs = (part[some] != part[first[some]]).any(dim=1)
            first[some[differs]] = some[differs]
    kept = first == index
    place = (kept.cumsum(0) - 1)[first]
    return (items if bool(kept.all()) else items[kept.nonzero().squeeze(1)]), place


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Float32 products in float32, whatever the training's mixed precision or matmul precision is."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(before)


def _dot(rows: Embeddings, columns: Embeddings) -> Tensor:
    with full_precision(rows.pooled.device):
        return rows.pooled @ columns.pooled.T


def _unit(items: Embeddings) -> Embeddings:
    """The pooled vectors at length 1; a zero vector stays zero, with cosine 0 to everything."""
    unit = torch.empty_like(items.pooled)
    step = max(1, _CHUNK // unit.shape[1])
    for vectors, out in zip(items.pooled.split(step), unit.split(step), strict=True):
        exact = vectors.double()  # the square of a large float32 is infinite
        out.copy_(exact / exact.norm(dim=1, keepdim=True).clamp(min=1e-300))
    return Embeddings(unit)


def _hashes(rows: Tensor, seed: int) -> Tensor:
    """An int64 for every row of `[N, W]`, equal for equal rows: the bits of its numbers times random odd numbers."""
    generator = torch.Generator().manual_seed(seed)
    weights = torch.randint(-(2**62), 2**62, (rows.shape[1],), generator=generator).to(rows.device) * 2 + 1
    codes = torch.empty(len(rows), dtype=torch.int64, device=rows.device)
    step = max(1, _CHUNK // rows.shape[1])
    for some, out in zip(rows.detach().split(step), codes.split(step), strict=True):
        bits = (some.float() + 0.0).contiguous().view(torch.int32)  # -0.0 + 0.0 is 0.0
        torch.sum(bits.long().mul_(weights), dim=1, out=out)
    return codes
