"""Neighbours that fade: lists of the k nearest whose members' weights are continuous in the vectors.

Item j is a member of the list of item i to the degree

    m_i(j) = clip((c_ij - l) / (h - l), 0, 1),

where l is the cosine of the (k + 1)-th nearest and h that of the one in the middle of the list. The nearer half are
full members, and an item that is about to leave the list has faded to 0, so rounding decides nothing. Weighted
k-nearest neighbours (Hechenbichler and Schliep 2004) standardise by the (k + 1)-th distance for the same reason.
"""

import torch
from torch import Tensor

NARROW = 1e-3
"""Least h - l: as rounding moves a cosine by 1e-7, no membership moves by more than 1e-4. Where more than half of a
list is nearer together than this, such as many texts of the same words, none is a full member."""
HANDICAP = 1e-3
"""Largest penalty on an item's cosines in the search. Each item has its own share of it, so that the choice among
equally near ones, such as texts of the same words, is always the same."""
IDENTICAL, SIMILAR = 1e-4, 3e-3
"""1 - cosine up to which an item counts as identical to another, and from which it does not."""
GOLDEN = (5**0.5 - 1) / 2
"""Golden ratio: its multiples modulo 1 are spread as evenly as possible."""


def handicaps(count: int, device: torch.device) -> Tensor:
    """The penalty of each of ``count`` items, float32 `[count]`."""
    positions = torch.arange(count, device=device, dtype=torch.float64)
    return (HANDICAP * (positions * GOLDEN % 1)).float()


def membership(cosine: Tensor, limit: Tensor) -> Tensor:
    """m_i(j) of cosines `[...]` and limits (l, h - l) `[..., 2]`."""
    return ((cosine - limit[..., 0]) / limit[..., 1]).clamp(0, 1)


def fading_top(cosines: Tensor, k: int, narrow: float = NARROW) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The k nearest of `[B, N]` penalised cosines; -inf excludes an item, and h - l is at least ``narrow``.

    Returns:
        their cosines, rows (int64) and memberships `[B, min(k, N)]`, and the limits (l, h - l) `[B, 2]`. With at most k
        candidates nothing fades, and l is -inf.
    """
    top = cosines.topk(min(k + 1, cosines.shape[1]), dim=1)
    values, rows = top.values[:, :k], top.indices[:, :k]
    limit = torch.stack([cosines.new_full((len(cosines),), -torch.inf), cosines.new_ones(len(cosines))], dim=1)
    if top.values.shape[1] > k:
        last = top.values[:, k]
        # Without a (k + 1)-th candidate any width will do.
        width = (top.values[:, (k - 1) // 2] - last).nan_to_num(1.0, posinf=1.0).clamp(min=narrow)
        limit = torch.stack([last, width], dim=1)
    member = membership(values, limit.unsqueeze(1)).masked_fill(values == -torch.inf, 0)
    return values, rows, member, limit


def identity(vectors: Tensor, others: Tensor) -> Tensor:
    """How far unit vectors `[..., D]` count as the same ones, in [0, 1].

    1 - cosine is half the squared distance, which rounds less than the cosine where it is small.
    """
    return ((SIMILAR - (vectors - others).square().sum(-1) / 2) / (SIMILAR - IDENTICAL)).clamp(0, 1)
