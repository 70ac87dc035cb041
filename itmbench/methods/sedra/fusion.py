"""Relation fusion enhancement (Fig. 4): the related tokens of an item fuse with its pooled vector."""

from torch import Tensor, nn
from torch.nn.functional import normalize

from itmbench.encoders import Embeddings, masked_max
from itmbench.methods.sedra.intra import Intra, IntraModalRelations


class RelationFusion(nn.Module):
    """One vector of an item: its pooled vector plus the maximum, by dimension, over its related tokens.

    Args:
        width: W, size of the encoder's vectors.
        dim: D, size of the result.
        intra: relations among the tokens; see `itmbench.methods.sedra.intra.IntraModalRelations`.
        k: relations kept per token.
    """

    def __init__(self, width: int, dim: int, intra: Intra, k: int) -> None:
        super().__init__()
        self.pooled, self.tokens = nn.Linear(width, dim), nn.Linear(width, dim)
        self.intra = IntraModalRelations(dim, intra, k)

    def forward(self, items: Embeddings) -> Tensor:
        """Fuse pooled `[B, W]` and tokens `[B, N, W]` into unit vectors `[B, D]`."""
        assert items.tokens is not None and items.mask is not None
        related = self.intra(self.tokens(items.tokens), items.mask)
        return normalize(self.pooled(items.pooled) + masked_max(related, items.mask), dim=-1)
