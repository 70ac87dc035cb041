"""Queries, gallery and training items of labelled corpora, for which no id lists were published."""

from pathlib import Path
from typing import Any, Literal

import numpy as np

from itmbench.data.corpus import Rows, Stage
from itmbench.data.datamodule import CorpusDataModule
from itmbench.errors import InputError
from itmbench.files import real_path

Order = Literal["seeded", "first", "last", "mith"]


def label_split(
    items: int, queries: int, train: int, val: int | None = None, order: Order = "seeded", seed: int = 0
) -> tuple[Rows, dict[str, Stage]]:
    """Split a labelled corpus as the cross-modal hashing papers do, with additional validation queries.

    The first ``queries`` items of an order are the test queries, the next ``train`` are the training items, and the
    last ``val`` of these become validation queries. The test gallery is everything but the test queries, as published.
    The validation gallery is the remaining training items, so that nothing that only the test gallery holds is used
    before the test.

    Args:
        items: number of items in the corpus.
        queries: number of test queries.
        train: published number of training items, from which validation queries are taken.
        val: number of validation queries; by default a tenth of ``train``.
        order: "seeded", a random permutation; "first", the order on disk, so that the first rows are the queries, as in
            DCMH; "last", the last rows are the queries and training starts at row 0, as in UCCH; "mith", the
            permutation that MITH draws with ``np.random.seed(1)``, which is its own split where the rows are in the
            order of its ``index.mat``.
        seed: of "seeded", which sorts items by raw 64-bit draws from PCG64. NumPy guarantees this stream across
            versions, and that of "mith", whose seed is fixed.

    Returns:
        Rows to train on, and the stages "val" and "test". All rows are in ascending order.

    Raises:
        InputError: the sizes do not fit into ``items``.
    """
    val = train // 10 if val is None else val
    if min(queries, train, val) < 1 or queries + train > items or val >= train:
        raise InputError(
            f"a split of {queries:,} queries and {train:,} training items, {val:,} of them for validation, does not "
            f"fit {items:,} items; give smaller sizes, each at least 1"
        )
    if order == "mith":
        ordered = np.random.RandomState(1).permutation(items)
    elif order == "seeded":
        ordered = np.argsort(np.random.PCG64(seed).random_raw(items), kind="stable")
    else:
        ordered = np.roll(np.arange(items), queries if order == "last" else 0)
    chosen, rest = ordered[:queries], ordered[queries:]
    fit, held_out = rest[: train - val], rest[train - val : train]
    stages = {"val": Stage(np.sort(held_out), np.sort(fit)), "test": Stage(np.sort(chosen), np.sort(rest))}
    return np.sort(fit), stages


class LabelledDataset(CorpusDataModule):
    """Base of the labelled datasets, whose items `label_split` divides.

    Args:
        root: the folder of the dataset.
        name: the dataset's name.
        queries: number of test queries.
        train: number of training items, before validation queries are taken from them.
        val: number of validation queries; by default a tenth of ``train``.
        order: how queries are chosen: "seeded", "first" (as in DCMH's own code), "last" (as in UCCH) or "mith".
        split_seed: seed of the "seeded" order.
        **kwargs: arguments of ``CorpusDataModule``.
    """

    name: str

    def __init__(
        self,
        root: str | Path,
        name: str,
        queries: int = 2_000,
        train: int = 10_000,
        val: int | None = None,
        order: Order = "seeded",
        split_seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.root, self.name = real_path(root), name
        self.queries, self.train, self.val, self.order, self.split_seed = queries, train, val, order, split_seed

    def split(self, items: int) -> tuple[Rows, dict[str, Stage]]:
        """Training rows, and the stages "val" and "test", of a corpus of so many items."""
        return label_split(items, self.queries, self.train, self.val, self.order, self.split_seed)
