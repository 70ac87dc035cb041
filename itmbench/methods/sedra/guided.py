"""Guided alignment: the vector of one item decides which tokens of the other count, anew for every pair."""

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from itmbench.encoders import Embeddings
from itmbench.encoders.base import hiding
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
        """Turn pooled `[B, W]` and tokens `[B, N, W]` into a unit query `[B, D]` and, with their logits, values.

        The values, 0 for padding, and behind each of them its logit, how much it counts for any query, are
        `[B, N, D + 1]`.
        """
        assert items.tokens is not None and items.mask is not None
        values = self.intra(self.value(items.tokens), items.mask)
        values = values * items.mask.unsqueeze(2).to(values.dtype)
        query = normalize(self.query(items.pooled), dim=-1)
        return query, torch.cat([values, self.weight(items.tokens)], dim=2)


def guided_cosines(guided: Tensor, mask: Tensor, gram: Tensor, queries: Tensor, sharpness: Tensor) -> Tensor:
    """Cosine of every query with the tokens that it selects in every item, float32 `[A, B]`.

    Query q gives token i of an item the weight w_i = softmax_i(s cos(q, v_i) + b_i) and is compared with the weighted
    sum x of the values: <q, x> = sum w_i <q, v_i> and |x|^2 = w' G w, so that x is never formed. Text-guided pooling
    of frames is X-Pool's (Gorti et al., CVPR 2022); here each modality guides the other.

    Args:
        guided: values and logits of A items `[A, N, D + 1]`.
        mask: true for real tokens, bool `[A, N]`.
        gram: Gram matrices of the values, float32 `[A, N, N]`.
        queries: unit queries of B items of the other modality `[B, D]`.
        sharpness: s, a scalar.
    """
    values, logits = guided[:, :, :-1], guided[:, :, -1].float() + hiding(mask)
    products = (values @ queries.T).float()  # [A, N, B]
    sizes = safe_sqrt(gram.diagonal(dim1=1, dim2=2)).unsqueeze(2)
    strength = sharpness * products / sizes + logits.unsqueeze(2)
    weights = strength.softmax(1) * mask.unsqueeze(2).float()
    length = safe_sqrt(((gram @ weights) * weights).sum(1).clamp(min=0))
    return (weights * products).sum(1) / length
