"""MCR-DGN: see README.md beside this file."""
