"""Who is a query, who is searched and who trains, for the corpora that come without a published id list."""

from typing import Literal

import numpy as np

from itmbench.data.corpus import Rows, Stage
from itmbench.errors import InputError

Order = Literal["seeded", "first", "last"]


def label_split(
    items: int, queries: int, train: int, val: int | None = None, order: Order = "seeded", seed: int = 0
) -> tuple[Rows, dict[str, Stage]]:
    """Splits a labelled corpus as the cross-modal hashing papers do, with validation queries beside.

    The items are brought into an order; the first ``queries`` of it are the test queries, the next ``train`` are
    the training items, and of these the last ``val`` become validation queries. The test gallery is everything
    but the queries, as published. The validation gallery is the training items that remain, so that an item
    which only the test gallery holds is never looked at before the test.

    Args:
        items: how many items the corpus has.
        queries: test queries.
        train: training items as published, before validation queries are carved out of them.
        val: validation queries; a tenth of ``train`` by default.
        order: "seeded", a permutation (as MITH draws one); "first", as on disk (DCMH: the first rows are the queries);
            "last", the last rows are the queries and training starts at the first row (UCCH).
        seed: of the permutation: items sorted by their raw 64-bit draw from PCG64, the part of NumPy's generators
            whose stream is guaranteed between versions.

    Returns:
        Rows to train on, and the stages "val" and "test"; every list of rows ascending.

    Raises:
        InputError: the sizes do not fit into ``items``.
    """
    val = train // 10 if val is None else val
    if min(queries, train, val) < 1 or queries + train > items or val >= train:
        raise InputError(
            f"a split of {queries:,} queries and {train:,} training items, {val:,} of them for validation, does not "
            f"fit {items:,} items; give smaller sizes, each at least 1"
        )
    if order == "seeded":
        ordered = np.argsort(np.random.PCG64(seed).random_raw(items), kind="stable")
    else:
        ordered = np.roll(np.arange(items), queries if order == "last" else 0)
    chosen, rest = ordered[:queries], ordered[queries:]
    fit, held_out = rest[: train - val], rest[train - val : train]
    stages = {"val": Stage(np.sort(held_out), np.sort(fit)), "test": Stage(np.sort(chosen), np.sort(rest))}
    return np.sort(fit), stages
