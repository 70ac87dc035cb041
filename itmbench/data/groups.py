"""Which images of a corpus are one observation in statistics, and which queries are trained on under another name."""

from dataclasses import replace

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from itmbench.data.corpus import Corpus, Count, ImageFiles, Rows
from itmbench.files import file_digest


def with_groups(corpus: Corpus) -> Corpus:
    """The corpus with `Corpus.groups` over all that makes two images dependent.

    Images are in one group if a reader says so (``corpus.groups``: NUS-WIDE lists some photographs twice), if they are
    near twins, or if they are queries of a stage and their files hold the same bytes; and so on transitively. If files
    of training images hold the bytes of a query, ``counts`` says how many.
    """
    identical, copies = _identical(corpus)
    if copies:
        corpus = replace(corpus, counts=[*corpus.counts, Count("training images identical to a query", copies)])
    links = [np.empty((0, 2), np.int64), identical]
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


def _identical(corpus: Corpus) -> tuple[Rows, int]:
    """Pairs of query images whose files are equal `[M, 2]`, and the number of training images with a file of a query.

    Only files of equal size are read.
    """
    files, none = corpus.images, np.empty((0, 2), np.int64)
    if not isinstance(files, ImageFiles) or not corpus.stages:
        return none, 0
    queries = np.unique(np.concatenate([stage.queries for stage in corpus.stages.values()]))
    rows = np.concatenate([queries, np.setdiff1d(corpus.train, queries)])  # queries first
    _, place, number = np.unique(files.sizes[rows], return_inverse=True, return_counts=True)
    alike = (number[place] > 1) & np.isin(files.sizes[rows], files.sizes[queries])
    first: dict[tuple[int, str], int] = {}
    pairs, copies = [], 0
    for at in np.flatnonzero(alike).tolist():
        path = files.root / files.names[rows[at]]
        if not path.is_file():  # it is reported where it is decoded
            continue
        content = int(files.sizes[rows[at]]), file_digest(path)
        if at >= len(queries):
            copies += content in first
        elif (other := first.setdefault(content, rows[at])) != rows[at]:
            pairs.append((rows[at], other))
    return np.asarray(pairs, np.int64).reshape(-1, 2), copies
