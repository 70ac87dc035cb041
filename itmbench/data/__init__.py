"""Photographs, captions, tags and labels on disk -> corpora -> batches."""
