"""GNN4CMR: see README.md beside this file."""
