"""MCR-DGN; docs/methods/mcr_dgn.md maps the parts of its description to these files."""

from itmbench.methods.mcr_dgn.module import MCRDGN

__all__ = ["MCRDGN"]
