"""SEDRA: see README.md beside this file."""
