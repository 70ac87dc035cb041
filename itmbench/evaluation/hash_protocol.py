"""The protocol of binary codes."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from itmbench.encoders.embeddings import Embeddings
from itmbench.errors import InputError
from itmbench.evaluation.hamming import hamming_queries
from itmbench.evaluation.protocol import LabelPair, LabelProtocol, Pair, Unseen
from itmbench.evaluation.scoring import Name, Scorer


@dataclass(frozen=True)
class HashProtocol(LabelProtocol):
    """Label retrieval with binary codes, ranked by Hamming distance; a bit is 1 where an embedding is above 0.

    Metrics are those of `LabelProtocol` without NDCG, and those that `itmbench.evaluation.hamming.hamming_retrieval`
    adds: "i2t/P@h0", "i2t/R@h0" and so on, precision and recall of all items within a Hamming distance, and
    "optimistic/mAP" with each direction.

    Args:
        bits: K, length of a code. Codes of different lengths are not ranked together.
    """

    name: ClassVar[str] = "hash-retrieval"
    version: ClassVar[int] = 1

    bits: int = 64

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.shortlist is not None:
            raise InputError("shortlist: codes are compared with all others anyway; leave the option out")

    def compared(self, items: Embeddings) -> Embeddings:
        """The codes, as 1 and -1, whose cosine falls with the Hamming distance."""
        return Embeddings(torch.where(items.pooled > 0, 1.0, -1.0))

    def _queries(
        self, sides: Pair, labels: LabelPair, scorer: Scorer | None, name: Name, unseen: Unseen
    ) -> dict[str, Tensor]:
        if scorer is not None:
            raise InputError("hash-retrieval: codes are compared by Hamming distance; leave the scorer out")
        queries, gallery = (side.pooled for side in sides)
        return hamming_queries(queries, gallery, *labels, self.cutoffs, self.normaliser, self.ties, unseen)
