"""MCR-DGN: docs/methods/mcr_dgn.md."""

from itmbench.methods.mcr_dgn.module import MCRDGN

__all__ = ["MCRDGN"]
