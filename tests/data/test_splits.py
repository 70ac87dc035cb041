import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from itmbench.data.splits import Order, label_split
from itmbench.errors import InputError

ORDERS: tuple[Order, ...] = ("seeded", "first", "last", "mith")


@given(
    queries=st.integers(1, 20), val=st.integers(1, 20), fit=st.integers(1, 20), rest=st.integers(0, 20),
    order=st.sampled_from(ORDERS), seed=st.integers(0, 2**32),
)  # fmt: skip
def test_roles_are_disjoint_and_the_gallery_is_whole(
    queries: int, val: int, fit: int, rest: int, order: Order, seed: int
) -> None:
    items = queries + val + fit + rest
    train, stages = label_split(items, queries, fit + val, val, order, seed)
    val_stage, test = stages["val"], stages["test"]
    assert (len(test.queries), len(val_stage.queries), len(train)) == (queries, val, fit)
    assert sorted([*test.queries, *test.gallery]) == list(range(items))
    assert not set(train) & set(val_stage.queries)
    assert set(train) | set(val_stage.queries) <= set(test.gallery)
    np.testing.assert_array_equal(val_stage.gallery, train)
    for rows in (train, val_stage.queries, test.queries, test.gallery):
        assert np.all(np.diff(rows) > 0)


def test_orders_of_the_literature() -> None:
    train, stages = label_split(10, 2, 5, 1, order="first")
    assert (stages["test"].queries.tolist(), train.tolist()) == ([0, 1], [2, 3, 4, 5])
    assert stages["val"].queries.tolist() == [6]
    train, stages = label_split(10, 2, 5, 1, order="last")
    assert (stages["test"].queries.tolist(), train.tolist()) == ([8, 9], [0, 1, 2, 3])
    assert stages["val"].queries.tolist() == [4]


def test_the_split_of_mith_is_what_its_code_draws() -> None:
    """``np.random.seed(1)``, a permutation of all rows, then queries first and training items next."""
    before = np.random.get_state()
    np.random.seed(1)
    drawn = np.random.permutation(range(20_015))
    np.random.set_state(before)
    train, stages = label_split(20_015, 2_000, 10_000, 1_000, order="mith", seed=7)
    assert drawn[:4].tolist() == [11550, 16587, 6189, 5542] and drawn[2_000:2_003].tolist() == [1204, 4300, 1160]
    np.testing.assert_array_equal(stages["test"].queries, np.sort(drawn[:2_000]))
    np.testing.assert_array_equal(np.union1d(train, stages["val"].queries), np.sort(drawn[2_000:12_000]))
    np.testing.assert_array_equal(stages["test"].gallery, np.sort(drawn[2_000:]))


def test_the_seeded_draw_never_changes() -> None:
    """Published results rest on these ids: if this fails, old results and new ones are no longer comparable."""
    train, stages = label_split(20_015, 2_000, 10_000)
    assert stages["test"].queries[:5].tolist() == [2, 3, 11, 13, 20]
    assert train[:5].tolist() == [1, 8, 15, 17, 18]
    assert (len(train), len(stages["val"].queries), len(stages["test"].gallery)) == (9_000, 1_000, 18_015)
    other, _ = label_split(20_015, 2_000, 10_000, seed=1)
    assert other.tolist() != train.tolist()


@pytest.mark.parametrize(("queries", "train", "val"), [(6, 5, 1), (0, 5, 1), (2, 5, 5), (2, 5, 0), (2, 0, None)])
def test_sizes_that_do_not_fit(queries: int, train: int, val: int | None) -> None:
    with pytest.raises(InputError, match=f"{queries} queries and {train} training items"):
        label_split(10, queries, train, val)
