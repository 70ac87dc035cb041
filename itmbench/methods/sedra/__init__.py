"""SEDRA: docs/methods/sedra.md has a file for each figure."""

from itmbench.methods.sedra.module import SEDRA

__all__ = ["SEDRA"]
