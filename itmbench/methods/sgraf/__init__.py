"""SGRAF: see README.md beside this file."""
