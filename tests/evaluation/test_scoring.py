import math

import pytest
import torch
from torch import Tensor

from itmbench.encoders.embeddings import Embeddings
from itmbench.errors import InputError
from itmbench.evaluation import scoring


def test_distinct_finds_repeated_items_by_all_their_numbers() -> None:
    pooled = torch.tensor([[1.0, 0.0], [2.0, 0.0], [1.0, -0.0], [1.0, 0.0], [2.0, 0.0], [1.0, 0.0]])
    tokens = torch.zeros(6, 3, 4)
    tokens[3, 2, 1] = 1.0
    mask = torch.ones(6, 3, dtype=torch.bool)
    mask[5, 0] = False
    items, place = scoring.distinct(Embeddings(pooled, tokens, mask))
    assert place.tolist() == [0, 1, 0, 2, 1, 3]
    assert torch.equal(items.pooled, pooled[[0, 1, 3, 5]])
    found = items[:].tokens
    assert found is not None and torch.equal(found, tokens[[0, 1, 3, 5]])


def test_equal_hashes_do_not_make_items_equal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring, "_hashes", lambda rows, seed: torch.zeros(len(rows), dtype=torch.int64))
    rows = torch.tensor([[1.0], [2.0], [1.0], [3.0]])
    items, place = scoring.distinct(Embeddings(rows))
    assert items.pooled[place].tolist() == rows.tolist()
    assert place[0] == place[2] and len(items) == 3


def test_cosines_are_float32_under_any_training_precision() -> None:
    rows, columns = torch.randn(40, 300), torch.randn(30, 300)
    exact = torch.nn.functional.normalize(rows.double()) @ torch.nn.functional.normalize(columns.double()).T
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        with torch.autocast("cpu", torch.bfloat16):
            a, b, dot, _ = scoring.comparable(Embeddings(rows), Embeddings(columns), None)
            found = scoring.score(dot, a, b, str)
            with scoring.full_precision(rows.device):
                assert torch.get_float32_matmul_precision() == "highest"
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)
    torch.testing.assert_close(found, exact.float(), rtol=0, atol=1e-6)


def test_vectors_of_any_finite_length_have_a_cosine() -> None:
    rows = torch.tensor([[3e38, 3e38], [1e-30, 0.0], [0.0, 0.0]])
    a, b, dot, _ = scoring.comparable(Embeddings(rows), Embeddings(torch.tensor([[1.0, 0.0]])), None)
    assert scoring.score(dot, a, b, str).squeeze(1).tolist() == pytest.approx([math.sqrt(0.5), 1.0, 0.0])


def test_different_dimensions_are_refused() -> None:
    with pytest.raises(InputError, match="of 3 and 4 dimensions"):
        scoring.comparable(Embeddings(torch.ones(2, 3)), Embeddings(torch.ones(2, 4)), None)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_bad_scores_and_embeddings_name_the_item(bad: float) -> None:
    items = Embeddings(torch.ones(4, 2))

    def scorer(rows: Embeddings, columns: Embeddings) -> Tensor:
        scores = torch.zeros(len(rows), len(columns))
        scores[2, 1] = bad
        return scores

    with pytest.raises(InputError, match="scores of row 2: NaN"):
        scoring.score(scorer, items, items, lambda row: f"row {row}")
    pooled = torch.ones(4, 2)
    pooled[3, 0] = bad
    with pytest.raises(InputError, match="embedding of row 3: NaN"):
        scoring.as_embeddings(pooled, lambda row: f"row {row}")


def test_bad_shapes_are_refused() -> None:
    items = Embeddings(torch.ones(4, 2))
    with pytest.raises(InputError, match=r"the scorer returned \[4\]"):
        scoring.score(lambda rows, columns: torch.zeros(4), items, items, str)
    for table in (torch.ones(3), torch.ones(0, 3)):
        with pytest.raises(InputError, match="give a table"):
            scoring.as_embeddings(table, str)


@pytest.mark.parametrize("room", [1, 5, 12, 100])
def test_too_little_memory_makes_smaller_tiles(room: int) -> None:
    rows, columns = Embeddings(torch.randn(7, 3)), Embeddings(torch.randn(11, 3))
    sizes = []

    def scorer(some: Embeddings, others: Embeddings) -> Tensor:
        sizes.append(len(some) * len(others))
        if sizes[-1] > room:
            raise torch.OutOfMemoryError("no room")
        return (some.pooled.unsqueeze(1) * others.pooled).sum(2)

    expected = (rows.pooled.unsqueeze(1) * columns.pooled).sum(2)
    assert torch.equal(scoring.score(scorer, rows, columns, str), expected)
    assert sum(size for size in sizes if size <= room) == 77

    def never(some: Embeddings, others: Embeddings) -> Tensor:
        raise torch.OutOfMemoryError("no room for one")

    with pytest.raises(torch.OutOfMemoryError):
        scoring.score(never, rows, columns, str)
