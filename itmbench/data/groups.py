"""Which images of a corpus are one observation in statistics."""

from dataclasses import replace

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from itmbench.data.corpus import Corpus, ImageFiles, Rows
from itmbench.files import file_digest


def with_groups(corpus: Corpus) -> Corpus:
    """The corpus with `Corpus.groups` over all that makes two images dependent.

    Images are in one group if a reader says so (``corpus.groups``: NUS-WIDE lists some photographs twice), if they are
    near twins, or if they are queries of a stage and their files hold the same bytes; and so on transitively.
    """
    links = [np.empty((0, 2), np.int64), _identical(corpus)]
    if corpus.hard_negatives is not None:
        links.append(corpus.hard_negatives)
    if corpus.groups is not None:
        _, first, place = np.unique(corpus.groups, return_index=True, return_inverse=True)
        links.append(np.stack([np.arange(len(place)), first[place]], axis=1))
    edges = np.concatenate(links)
    if not len(edges):
        return corpus
    images = len(corpus.image_ids)
    graph = coo_array((np.ones(len(edges), np.int8), edges.T), shape=(images, images))
    return replace(corpus, groups=connected_components(graph, directed=False)[1].astype(np.int64))


def _identical(corpus: Corpus) -> Rows:
    """Pairs of query images whose files are equal `[M, 2]`; only files of equal size are read."""
    files = corpus.images
    if not isinstance(files, ImageFiles) or not corpus.stages:
        return np.empty((0, 2), np.int64)
    queries = np.unique(np.concatenate([stage.queries for stage in corpus.stages.values()]))
    sizes, place, number = np.unique(files.sizes[queries], return_inverse=True, return_counts=True)
    first: dict[tuple[int, str], int] = {}
    pairs = []
    for row, size in zip(queries[number[place] > 1].tolist(), sizes[place][number[place] > 1].tolist(), strict=True):
        path = files.root / files.names[row]
        if path.is_file():  # a missing one is reported where it is decoded
            pairs.append((row, first.setdefault((size, file_digest(path)), row)))
    return np.asarray([pair for pair in pairs if pair[0] != pair[1]], np.int64).reshape(-1, 2)
