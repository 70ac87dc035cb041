"""DSCMR: see README.md beside this file."""
