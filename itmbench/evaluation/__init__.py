"""Turn embeddings and a scorer into exact retrieval metrics under a named protocol.

Recalls of caption retrieval are hit rates. Ties lose by default. NaN is an error. No function holds the scores of all
queries with all items in memory. Negative scores count like any others, unlike in `torchmetrics.retrieval`, which
since version 1.7.4 treats items with a score of 0 or less as irrelevant.

The public names are imported on first use: tables and tests of finished results need no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from itmbench.evaluation.arrays import caption_retrieval as caption_retrieval
    from itmbench.evaluation.arrays import evaluate as evaluate
    from itmbench.evaluation.evaluation import Evaluation as Evaluation
    from itmbench.evaluation.functional import average_precision as average_precision
    from itmbench.evaluation.functional import best_ranks as best_ranks
    from itmbench.evaluation.hamming import hamming_retrieval as hamming_retrieval
    from itmbench.evaluation.hash_protocol import HashProtocol as HashProtocol
    from itmbench.evaluation.label import label_retrieval as label_retrieval
    from itmbench.evaluation.protocol import (
        CaptionProtocol as CaptionProtocol,
    )
    from itmbench.evaluation.protocol import (
        LabelProtocol as LabelProtocol,
    )
    from itmbench.evaluation.protocol import (
        protocol_for as protocol_for,
    )
    from itmbench.evaluation.scoring import Scorer as Scorer

MODULE_OF = {
    "CaptionProtocol": "itmbench.evaluation.protocol",
    "Evaluation": "itmbench.evaluation.evaluation",
    "HashProtocol": "itmbench.evaluation.hash_protocol",
    "LabelProtocol": "itmbench.evaluation.protocol",
    "Scorer": "itmbench.evaluation.scoring",
    "average_precision": "itmbench.evaluation.functional",
    "best_ranks": "itmbench.evaluation.functional",
    "caption_retrieval": "itmbench.evaluation.arrays",
    "evaluate": "itmbench.evaluation.arrays",
    "hamming_retrieval": "itmbench.evaluation.hamming",
    "label_retrieval": "itmbench.evaluation.label",
    "protocol_for": "itmbench.evaluation.protocol",
}
__all__ = [*MODULE_OF]


def __getattr__(name: str) -> Any:
    if name in MODULE_OF:
        return getattr(import_module(MODULE_OF[name]), name)
    raise AttributeError(f"module 'itmbench.evaluation' has no attribute '{name}'")
