"""Canonical correlation analysis: see README.md beside this file."""
