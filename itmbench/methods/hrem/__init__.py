"""HREM: see README.md beside this file."""
