"""SCAN: see README.md beside this file."""
