"""Retrieval: embeddings and a scorer in, exact metrics under a named protocol out.

Recalls of caption retrieval are hit rates; ties lose unless asked otherwise; NaN is an error. Nothing here keeps a
score matrix of all queries by all items, and nothing here gives credit for scores below zero or takes it away, as
`torchmetrics.retrieval` does with cosines: since its version 1.7.4 an item with a score of 0 or less is not relevant.
"""

from itmbench.evaluation.arrays import evaluate
from itmbench.evaluation.caption import caption_retrieval
from itmbench.evaluation.label import label_retrieval
from itmbench.evaluation.protocol import CaptionProtocol, Evaluation, LabelProtocol, protocol_for
from itmbench.evaluation.scoring import Scorer

__all__ = [
    "CaptionProtocol",
    "Evaluation",
    "LabelProtocol",
    "Scorer",
    "caption_retrieval",
    "evaluate",
    "label_retrieval",
    "protocol_for",
]
