"""Where embeddings wait: rows in any order, allocated once, and selections that copy only what is sliced."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from itmbench.encoders.embeddings import Embeddings, Selected
from itmbench.encoders.table import EmbeddingTable


def items(count: int, length: int, generator: torch.Generator, words: bool = False) -> Embeddings:
    tokens = torch.randn(count, length, 3, generator=generator)
    mask = torch.rand(count, length, generator=generator) < 0.8
    drawn = torch.randint(9, (count, length), generator=generator)
    return Embeddings(torch.randn(count, 5, generator=generator), tokens, mask, drawn if words else None)


def equal(one: Embeddings, other: Embeddings) -> bool:
    pairs = zip(vars(one).values(), vars(other).values(), strict=True)
    return all((a is None and b is None) or torch.equal(a, b) for a, b in pairs)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.booleans(), st.booleans())
def test_rows_are_those_of_all_batches_put_together(seed: int, tokens: bool, words: bool) -> None:
    """Batches in any order, of any length, with rows that come twice and rows of no interest."""
    random, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    rows = random.choice(40, size=12, replace=False)
    parts = []
    for part in np.array_split(random.permutation(np.concatenate([np.arange(60), random.choice(rows, 5)])), 7):
        encoded = items(len(part), int(random.integers(1, 6)), generator, words)
        parts.append((torch.from_numpy(part), encoded if tokens else Embeddings(encoded.pooled)))
    table = EmbeddingTable(rows)
    assert table.missing == len(rows) == 12
    for batch in parts:
        table.append(batch)
    everything, index = (
        Embeddings.cat([encoded for _, encoded in parts]),
        torch.cat([index for index, _ in parts]).tolist(),
    )
    expected = everything[torch.tensor([index.index(row) for row in rows.tolist()])]
    assert table.missing == 0 and equal(table.embeddings(), expected)


def test_memory_is_allocated_once_unless_a_batch_is_longer() -> None:
    generator, table = torch.Generator().manual_seed(0), EmbeddingTable(np.arange(8))
    places = []
    for start, length in ((0, 4), (2, 4), (4, 2), (6, 5)):
        table.append((torch.arange(start, start + 2), items(2, length, generator)))
        tokens = table.embeddings().tokens
        assert tokens is not None
        places.append(tokens.data_ptr())
    assert places[0] == places[1] == places[2] != places[3]


def test_missing_rows_are_counted() -> None:
    table = EmbeddingTable(np.array([3, 5, 9]))
    table.append((torch.tensor([9, 4]), Embeddings(torch.ones(2, 2))))
    assert table.missing == 2 and len(table) == 3


def test_a_selection_is_what_indexing_gives() -> None:
    whole = items(20, 4, torch.Generator().manual_seed(1))
    rows = torch.tensor([7, 3, 3, 19, 0, 11])
    selected = whole.select(rows)
    assert isinstance(selected, Selected) and len(selected) == 6
    assert torch.equal(selected.pooled, whole.pooled[rows])
    for part in (slice(1, 4), slice(None), torch.tensor([5, 0])):
        assert equal(selected[part], whole[rows[part]])
    assert equal(selected.select(torch.tensor([4, 1]))[:], whole[rows[[4, 1]]])
    assert equal(selected.on_one_device(), whole[rows])
    assert isinstance(Embeddings(whole.pooled).select(rows), Embeddings)  # vectors are copied at once


def test_a_selection_copies_no_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    getitem = Embeddings.__getitem__

    def counted(self: Embeddings, rows: slice | Tensor) -> Embeddings:
        found = getitem(self, rows)
        read.append(len(found))
        return found

    monkeypatch.setattr(Embeddings, "__getitem__", counted)
    selected = items(50, 4, torch.Generator().manual_seed(1)).select(torch.arange(40))
    assert not read
    assert len(selected[3:5]) == 2 and read == [2]
