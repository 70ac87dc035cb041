"""Mini corpora: rendered from a seed in seconds, in the genuine layouts of Flickr30K, MirFlickr-25K and NUS-WIDE."""
