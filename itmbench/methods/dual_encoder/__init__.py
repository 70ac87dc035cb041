"""Dual encoder: see README.md beside this file."""
