"""Datasets on disk -> corpora -> batches."""
