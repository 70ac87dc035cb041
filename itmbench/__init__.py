"""itmbench: a PyTorch Lightning benchmark suite for image-text matching and cross-modal retrieval."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from itmbench.evaluation import evaluate
    from itmbench.store import load_results

__version__ = "0.1.0"
__all__ = ["__version__", "evaluate", "load_results"]


def __getattr__(name: str) -> object:
    """Import what needs torch or pandas only on first use, so that ``import itmbench`` stays quick."""
    if name == "evaluate":
        from itmbench.evaluation import evaluate

        return evaluate
    if name == "load_results":
        from itmbench.store import load_results

        return load_results
    raise AttributeError(f"module 'itmbench' has no attribute '{name}'")
