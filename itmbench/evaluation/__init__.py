"""Turn embeddings and a scorer into exact retrieval metrics under a named protocol.

Recalls of caption retrieval are hit rates. Ties lose by default. NaN is an error. No function holds the scores of all
queries with all items in memory. Negative scores count like any others, unlike in `torchmetrics.retrieval`, which
since version 1.7.4 treats items with a score of 0 or less as irrelevant.
"""

from itmbench.evaluation.arrays import caption_retrieval, evaluate
from itmbench.evaluation.evaluation import Evaluation
from itmbench.evaluation.functional import average_precision, best_ranks
from itmbench.evaluation.hamming import hamming_retrieval
from itmbench.evaluation.hash_protocol import HashProtocol
from itmbench.evaluation.label import label_retrieval
from itmbench.evaluation.protocol import CaptionProtocol, LabelProtocol, protocol_for
from itmbench.evaluation.scoring import Scorer

__all__ = [
    "CaptionProtocol",
    "Evaluation",
    "HashProtocol",
    "LabelProtocol",
    "Scorer",
    "average_precision",
    "best_ranks",
    "caption_retrieval",
    "evaluate",
    "hamming_retrieval",
    "label_retrieval",
    "protocol_for",
]
