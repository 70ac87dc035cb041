"""SEDRA; docs/methods/sedra.md maps the figures of its description to these files."""

from itmbench.methods.sedra.module import SEDRA

__all__ = ["SEDRA"]
