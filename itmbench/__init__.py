"""itmbench: a PyTorch Lightning benchmark suite for image-text matching and cross-modal retrieval.

The public names are imported on first use, so that ``import itmbench`` stays quick.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from itmbench.data.corpus import Corpus as Corpus
    from itmbench.data.datamodule import CorpusDataModule as CorpusDataModule
    from itmbench.encoders import Embeddings as Embeddings
    from itmbench.encoders import Encoder as Encoder
    from itmbench.evaluation import evaluate as evaluate
    from itmbench.methods.base import Matcher as Matcher
    from itmbench.runner.run import run as run
    from itmbench.store.checkpoint import load as load
    from itmbench.store.folder import load_results as load_results

__version__ = "0.1.0"
MODULE_OF = {
    "Corpus": "itmbench.data.corpus",
    "CorpusDataModule": "itmbench.data.datamodule",
    "Embeddings": "itmbench.encoders",
    "Encoder": "itmbench.encoders",
    "Matcher": "itmbench.methods.base",
    "evaluate": "itmbench.evaluation",
    "load": "itmbench.store.checkpoint",
    "load_results": "itmbench.store.folder",
    "run": "itmbench.runner.run",
}
__all__ = ["__version__", *MODULE_OF]


def __getattr__(name: str) -> Any:
    if name in MODULE_OF:
        return getattr(import_module(MODULE_OF[name]), name)
    raise AttributeError(f"module 'itmbench' has no attribute '{name}'")


def __dir__() -> list[str]:
    return __all__
