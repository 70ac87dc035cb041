"""Guided alignment: the vector of one item decides which tokens of the other count, anew for every pair."""

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from itmbench.encoders import Embeddings
from itmbench.methods.cross_attention import safe_sqrt
from itmbench.methods.sedra.intra import Intra, IntraModalRelations


class GuidedTokens(nn.Module):
    """What an item needs to guide and to be guided: a query, values, and how much each value counts for any query.

    Args:
        width: W, size of the encoder's vectors.
        dim: D, size of queries and values.
        intra: relations among the values; see `itmbench.methods.sedra.intra.IntraModalRelations`.
        k: relations kept per value.
    """

    def __init__(self, width: int, dim: int, intra: Intra, k: int) -> None:
        super().__init__()
        self.query, self.value = nn.Linear(width, dim), nn.Linear(width, dim)
        self.intra = IntraModalRelations(dim, intra, k)
        self.weight = nn.Sequential(nn.Linear(width, 64), nn.Tanh(), nn.Linear(64, 1))

    def forward(self, items: Embeddings) -> tuple[Tensor, Tensor]:
        """Turn tokens `[B, N, W]` and pooled `[B, W]` into one row for the query and one for every token.

        Returns:
            `[B, 1 + N, D + 1]`: the unit query and 0, then each value and its logit; and its mask, bool `[B, 1 + N]`.
        """
        assert items.tokens is not None and items.mask is not None
        values = self.intra(self.value(items.tokens), items.mask) * items.mask.unsqueeze(2)
        query = normalize(self.query(items.pooled), dim=-1)
        first = torch.cat([query, query.new_zeros(len(query), 1)], dim=1).unsqueeze(1)
        rows = torch.cat([first, torch.cat([values, self.weight(items.tokens)], dim=2)], dim=1)
        return rows, torch.cat([items.mask.new_ones(len(query), 1), items.mask], dim=1)


def guided_cosines(guided: Tensor, mask: Tensor, gram: Tensor, guides: Tensor, sharpness: Tensor) -> Tensor:
    """Cosine of every query with the tokens that it selects in every item, float32 `[A, B]`.

    Query q gives token i of an item the weight w_i = softmax_i(s cos(q, v_i) + b_i) and is compared with the weighted
    sum x of the values: <q, x> = sum w_i <q, v_i> and |x|^2 = w' G w, so that x is never formed. Text-guided pooling
    of frames is X-Pool's (Gorti et al., CVPR 2022); here each modality guides the other.

    Args:
        guided: rows of A items as ``GuidedTokens`` makes them `[A, 1 + N, D + 1]`.
        mask: true for real rows, bool `[A, 1 + N]`.
        gram: Gram matrices of their values, float32 `[A, N, N]`.
        guides: rows of B items of the other modality `[B, 1 + M, D + 1]`.
        sharpness: s, a scalar.
    """
    values, logits, real = guided[:, 1:, :-1], guided[:, 1:, -1:].float(), mask[:, 1:].unsqueeze(2)
    products = (values @ guides[:, 0, :-1].T).float()  # [A, N, B]
    sizes = safe_sqrt(gram.diagonal(dim1=1, dim2=2)).unsqueeze(2)
    strength = (sharpness * products / sizes + logits).masked_fill(~real, -torch.inf)
    empty = ~real.any(1, keepdim=True)
    weights = strength.masked_fill(empty, 0.0).softmax(1) * real
    length = safe_sqrt(((gram @ weights) * weights).sum(1).clamp(min=0))
    return (weights * products).sum(1) / length
