"""DCMH with real-valued codes: see README.md beside this file."""
