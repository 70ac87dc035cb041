"""Rank a gallery for each query and compute every label-based metric from the ranking."""

import sys
from collections.abc import Sequence
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from itmbench.errors import InputError

Ties = Literal["pessimistic", "optimistic"]
Normaliser = Literal["retrieved", "min", "all", "mith"]

TIES = ("pessimistic", "optimistic")
NORMALISERS = ("retrieved", "min", "all", "mith")

# Scores ranked at once: few enough that their 8-byte keys fit the CPU cache, or enough to fill a GPU.
_BLOCK = {"cpu": 1 << 20}
_BLOCK_ELSEWHERE = 1 << 25

_LOW_BITS = 0x7FFFFFFF
_UPPER = 1 if sys.byteorder == "little" else 0  # index of the upper int32 of an int64


class Ranked(NamedTuple):
    """The outcome of ``rank_gallery``."""

    whole: "Ranking"
    part: "Ranking | None"  # the same ranking without the items outside a part of the gallery
    finite: Tensor  # bool `[Q]`: whether a query has no NaN or infinite score


def rank_gallery(scores: Tensor, gains: Tensor, ties: Ties, part: Tensor | None = None) -> Ranked:
    """Rank the gallery for each query, and with the same sort a part of it.

    Args:
        scores: float32 `[Q, N]`, higher is better.
        gains: whole numbers >= 0 `[Q, N]`; an item is relevant if its gain is above 0.
        ties: "pessimistic" ranks the smallest gain first among equal scores, "optimistic" the largest.
        part: bool `[N]`, true for the items of the part; None for no part.
    """
    labels = gains.int() if part is None else 2 * gains.int() + part
    order = _in_order((0.0 - scores).view(torch.int32))  # 0.0 - x, because -0.0 and 0.0 must tie
    ends = torch.stack(order.aminmax())
    first, last = ends.tolist()
    if part is None and bool(labels.max() <= 1) and last - first < 1 << 31 and bool(_finite(ends).all()):
        hits = sort_rows(_short_keys(order, (first + last + 1) // 2, labels, ties)) & 1
        all_finite = torch.ones(len(scores), dtype=torch.bool, device=scores.device)
        return Ranked(Ranking(hits if ties == "pessimistic" else 1 - hits), None, all_finite)
    keys = sort_rows(_keys(order, labels, ties))
    halves = keys[..., None].view(torch.int32)
    # The sort moves NaN and infinities to the two ends of a row, so checking the ends suffices.
    finite = _finite(halves[:, 0, _UPPER]) & _finite(halves[:, -1, _UPPER])
    lower = halves[..., 1 - _UPPER]
    labels = lower if ties == "pessimistic" else _LOW_BITS - lower
    if part is None:
        return Ranked(Ranking(labels.contiguous()), None, finite)
    gains = labels >> 1
    return Ranked(Ranking(gains), Ranking(_chosen(gains, (labels & 1).bool()).view(len(gains), -1)), finite)


class Ranking:
    """Metrics of the gains of each query's gallery in ranked order, int32 `[Q, N]`."""

    def __init__(self, gains: Tensor) -> None:
        self.gains = gains

    @cached_property
    def hits(self) -> Tensor:
        """1 if the item at a rank is relevant, else 0, int32 `[Q, N]`."""
        return self.gains.clamp(max=1)

    @cached_property
    def found(self) -> Tensor:
        """Number of relevant items up to and including each rank, int32 `[Q, N]`."""
        return self.hits.cumsum(1, dtype=torch.int32)

    @cached_property
    def relevant(self) -> Tensor:
        """Number of relevant items of each query, R, float64 `[Q]`."""
        return self.found[:, -1].double()

    @cached_property
    def _found_at_hits(self) -> Tensor:
        return self.found * self.hits

    def average_precision(self, cutoff: int | None = None, normaliser: Normaliser = "retrieved") -> Tensor:
        """Float64 `[Q]`; see `itmbench.evaluation.functional.average_precision`."""
        if cutoff is None:
            return _ratio(self._precision_sum(self._found_at_hits), self.relevant)
        if normaliser == "mith":
            kept = self.relevant.clamp(max=cutoff)
            counted = self._found_at_hits * (self.found <= kept[:, None])
            return _ratio(self._precision_sum(counted), kept)
        divisor = {
            "retrieved": self.found[:, :cutoff][:, -1].double(),
            "min": self.relevant.clamp(max=cutoff),
            "all": self.relevant,
        }[normaliser]
        return _ratio(self._precision_sum(self._found_at_hits[:, :cutoff]), divisor)

    def metrics(self, cutoffs: Sequence[int], normaliser: Normaliser) -> dict[str, Tensor]:
        """Float64 `[Q]` by key; see `itmbench.evaluation.functional.ranking_metrics`."""
        metrics = {"AP": self.average_precision(), "relevant": self.relevant}
        for k in cutoffs:
            found = self.found[:, :k][:, -1].double()
            metrics[f"AP@{k}"] = self.average_precision(k, normaliser)
            metrics[f"P@{k}"], metrics[f"R@{k}"] = found / k, _ratio(found, self.relevant)
            metrics[f"NDCG@{k}"] = self._ndcg(k)
        levels = self._interpolated_precision()
        return metrics | {f"P@r{level / 10}": levels[:, level] for level in range(11)}

    def _ndcg(self, k: int) -> Tensor:
        gains = self.gains[:, :k]
        discounts = 1 / torch.log2(1 + self._ranks(gains.shape[1]))
        # Few numbers, summed on the CPU because a cumulative float sum on a GPU is not reproducible.
        sums = torch.cat([torch.zeros(1, dtype=torch.float64), discounts.cpu().cumsum(0)]).to(discounts.device)
        return _ratio((gains * discounts).sum(1), sums[self._at_least.clamp(max=len(discounts))].sum(1))

    def _interpolated_precision(self) -> Tensor:
        """Best precision from each of the recall levels 0.0, 0.1, ..., 1.0 on, float64 `[Q, 11]`."""
        queries, gallery = self.gains.shape
        # Level r is reached at the ceil(r R)-th relevant item, level 0 at the first. In integers, because 0.3 * 10 is
        # above 3 in floating point.
        tenths = torch.arange(11, device=self.gains.device, dtype=torch.int32)
        needed = ((tenths * self.found[:, -1:] + 9) // 10).clamp(min=1)
        starts = torch.searchsorted(self.found, needed)
        # Best precision between one level and the next, then from each level on. The stretch before level 0 is dropped.
        edges = torch.cat([starts.new_zeros(queries, 1), starts, starts.new_full((queries, 1), gallery)], dim=1)
        precisions = self.found.double().div_(self._ranks(gallery))
        return _largest(precisions, edges)[:, 1:].flip(1).cummax(1).values.flip(1)

    @cached_property
    def _at_least(self) -> Tensor:
        """Number of items of gain 1 or more, 2 or more, ..., int64 `[Q, G]`.

        Ranks 1..c_g of the ideal ranking collect the g-th unit of gain, with c_g items of gain g or more, so it needs
        no second sort.
        """
        levels = int(self.gains.max()) + 1
        offsets = torch.arange(len(self.gains), device=self.gains.device, dtype=torch.int32)[:, None] * levels
        histogram = torch.bincount((self.gains + offsets).flatten(), minlength=len(self.gains) * levels)
        return histogram.view(-1, levels)[:, 1:].flip(1).cumsum(1).flip(1)

    def _precision_sum(self, found_at_hits: Tensor) -> Tensor:
        """Sum of found / rank over the hits, float64 `[Q]`; ``found_at_hits`` is 0 at other ranks."""
        return found_at_hits.double() @ (1 / self._ranks(found_at_hits.shape[1]))

    def _ranks(self, n: int) -> Tensor:
        return torch.arange(1, n + 1, dtype=torch.float64, device=self.gains.device)


def _keys(order: Tensor, labels: Tensor, ties: Ties) -> Tensor:
    """Sort keys, int64 `[Q, N]`, ascending in ranked order: sorting values is much cheaper than sorting indices.

    The upper half orders by descending score. The lower half holds the label of the item (its gain, and whether it
    belongs to the part): it breaks ties by gain, and the labels in ranked order can be read back from the sorted keys.
    """
    halves = torch.empty(*order.shape, 2, dtype=torch.int32, device=order.device)
    halves[..., _UPPER] = order
    halves[..., 1 - _UPPER] = labels if ties == "pessimistic" else _LOW_BITS - labels
    return halves.view(torch.int64).squeeze(-1)


def _short_keys(order: Tensor, middle: int, labels: Tensor, ties: Ties) -> Tensor:
    """The same as int32, which sort twice as fast, for labels of 0 or 1.

    The scores must leave room for one more bit, as cosines do: less than 2^31 from the first to the last in order.
    """
    keys = order.sub_(middle).mul_(2)
    return keys.add_(labels) if ties == "pessimistic" else keys.add_(1 - labels)


def _in_order(bits: Tensor) -> Tensor:
    """Map the bits of floats to int32 in the same order, and back, by flipping negative floats."""
    return bits ^ (bits >> 31).bitwise_and_(_LOW_BITS)


def _finite(upper: Tensor) -> Tensor:
    """Whether the scores behind the given upper halves of keys are finite."""
    return _in_order(upper).view(torch.float32).isfinite()


def sort_rows(rows: Tensor) -> Tensor:
    """Sort each row of `[Q, N]`; on a CPU in place with NumPy, whose sort is vectorised."""
    if rows.device.type != "cpu":
        return rows.sort(dim=1).values
    rows.numpy().sort(axis=1)
    return rows


def _chosen(values: Tensor, mask: Tensor) -> Tensor:
    """The values where a mask of the same shape is true, flat; on a CPU with NumPy, eight times as fast."""
    if values.device.type != "cpu":
        return values[mask]
    return torch.from_numpy(np.compress(mask.numpy().ravel(), values.numpy().ravel()))


def _largest(values: Tensor, edges: Tensor) -> Tensor:
    """The largest value of each row of `[Q, N]` between one of its edges `[Q, S + 1]` and the next, or 0, `[Q, S]`.

    The first edge of a row is 0 and the last N. On a CPU with NumPy, whose maximum is vectorised.
    """
    sizes = edges.diff(dim=1)
    if values.device.type != "cpu":
        return torch.segment_reduce(values.flatten(), "max", lengths=sizes.flatten(), initial=0).view_as(sizes)
    starts = edges[:, :-1] + values.shape[1] * torch.arange(len(values))[:, None]
    largest, some = torch.zeros_like(sizes, dtype=values.dtype), sizes > 0
    largest[some] = torch.from_numpy(np.maximum.reduceat(values.numpy().ravel(), starts[some].numpy()))
    return largest


def _ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    """Quotient, or 0 if the denominator is 0."""
    return torch.where(denominator > 0, numerator / denominator.clamp(min=1e-300), 0.0)


def row_blocks(queries: int, gallery: int, device: torch.device) -> list[slice]:
    """Split the queries into blocks small enough to rank at once."""
    step = max(1, _BLOCK.get(device.type, _BLOCK_ELSEWHERE) // gallery)
    return [slice(start, min(start + step, queries)) for start in range(0, queries, step)]


def not_finite(what: str) -> InputError:
    """The error for NaN or infinite scores of a query."""
    return InputError(f"scores of {what}: NaN or infinite; check the model for overflow or division by zero")


def check_options(ties: str, normaliser: str = "retrieved", cutoffs: tuple[int, ...] = ()) -> None:
    """Raise InputError for an unknown option or a cutoff that is not a whole number from 1 on."""
    if ties not in TIES:
        raise InputError(f"ties: {ties!r} is unknown; choose one of {', '.join(TIES)}")
    if normaliser == "dcmh":
        raise InputError(
            "normaliser: 'dcmh' is now called 'mith'; DCMH's own code is 'retrieved', choose one of the two"
        )
    if normaliser not in NORMALISERS:
        raise InputError(f"normaliser: {normaliser!r} is unknown; choose one of {', '.join(NORMALISERS)}")
    for cutoff in cutoffs:
        require_whole("cutoff", cutoff, 1)


def require_whole(what: str, number: object, least: int) -> None:
    """Raise an InputError if an option is not a whole number, or too small."""
    if not isinstance(number, int | np.integer) or number < least:
        raise InputError(f"{what}: {number!r}; give a whole number of at least {least}")
