"""Random tokens in place of encoded items."""

import torch
from torch.nn.functional import normalize

from itmbench.encoders import Embeddings


def toy_items(lengths: list[int], dim: int = 16, seed: int = 0) -> Embeddings:
    """Items with unit tokens and unit pooled vectors; what stands in the padding is not 0 and must not matter."""
    generator = torch.Generator().manual_seed(seed)
    longest = max(1, *lengths)
    mask = torch.arange(longest).unsqueeze(0) < torch.tensor(lengths).unsqueeze(1)
    tokens = normalize(torch.randn(len(lengths), longest, dim, generator=generator), dim=-1)
    return Embeddings(normalize(torch.randn(len(lengths), dim, generator=generator), dim=-1), tokens, mask)


def real(items: Embeddings, row: int) -> torch.Tensor:
    """The real tokens `[n, D]` of one item."""
    assert items.tokens is not None and items.mask is not None
    return items.tokens[row][items.mask[row]]
