"""Average ranks against the worked example of Demšar (2006) and scipy, and which tables are put together."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from itmbench.report.ranks import average_ranks, in_words
from itmbench.report.tables import Table, tables

# Demšar's Table 6: AUC of four variants of C4.5 on 14 datasets.
AUC = """0.763 0.768 0.771 0.798 | 0.599 0.591 0.590 0.569 | 0.954 0.971 0.968 0.967 | 0.628 0.661 0.654 0.657
0.882 0.888 0.886 0.898 | 0.936 0.931 0.916 0.931 | 0.661 0.668 0.609 0.685 | 0.583 0.583 0.563 0.625
0.775 0.838 0.866 0.875 | 1.000 1.000 1.000 1.000 | 0.940 0.962 0.965 0.962 | 0.619 0.666 0.614 0.669
0.972 0.981 0.9751 0.975 | 0.957 0.978 0.946 0.970"""
NAMES = ["C4.5", "C4.5+m", "C4.5+cf", "C4.5+m+cf"]


@pytest.fixture(scope="module")
def base(frame: pd.DataFrame) -> Table:
    return tables(frame)[0]


def made(base: Table, scores: np.ndarray, names: list[str], **fields: object) -> list[Table]:
    """A table a dataset, of scores `[datasets, methods]`; NaN is not measured."""
    found = []
    for place, row in enumerate(scores):
        measured = {name: score for name, score in zip(names, row, strict=True) if not np.isnan(score)}
        rows = pd.DataFrame({"label": list(measured), "rSum": list(measured.values())})
        table = replace(base, dataset=f"d{place}", ranked=list(measured), rows=rows)
        found.append(replace(table, **fields))  # type: ignore[arg-type]
    return found


def test_the_published_example(base: Table) -> None:
    scores = np.array([[float(v) for v in block.split()] for line in AUC.splitlines() for block in line.split("|")])
    [found] = average_ranks(made(base, scores, NAMES))
    assert found.critical == pytest.approx(1.25, abs=0.01)
    expected = {"C4.5": 3.143, "C4.5+m": 2.000, "C4.5+cf": 2.893, "C4.5+m+cf": 1.964}
    assert found.ranks.to_dict() == pytest.approx(expected, abs=0.001)
    assert found.ranks.idxmin() == "C4.5+m+cf"
    assert found.p == pytest.approx(stats.friedmanchisquare(*scores.T).pvalue)
    assert found.apart == []  # 3.143 - 1.964 = 1.179 is below 1.25
    assert "too few" not in in_words(found) and "no two methods differ by that much" in in_words(found)


def test_methods_that_are_apart_are_named_and_few_datasets_too(base: Table) -> None:
    scores = np.array([[3.0, 2.0, 1.0]] * 10)
    [found] = average_ranks(made(base, scores, ["a", "b", "c"]))
    assert found.critical == pytest.approx(1.048, abs=0.001)
    assert found.apart == [("a", "c")]
    assert "pairs that differ by that much: a before c." in in_words(found)
    assert "10 datasets are too few" in in_words(found)


def test_a_summary_for_every_set_that_shares_enough(base: Table) -> None:
    nan = np.nan
    scores = np.array([[1, 2, 3, 4], [1, 2, 3, nan], [1, 2, 3, nan], [nan, 1, nan, 2]], float)
    [found] = average_ranks(made(base, scores, ["a", "b", "c", "d"]))
    assert (found.datasets, sorted(found.ranks.index)) == (["d0", "d1", "d2"], ["a", "b", "c"])
    assert in_words(found).startswith(
        "Average rank over 3 datasets (d0, d1, d2) of the methods measured on all, without d:"
    )
    assert average_ranks(made(base, scores[:1], ["a", "b", "c", "d"])) == []
    assert average_ranks(made(base, scores[:, :2], ["a", "b"])) == []


def test_a_set_that_no_method_has_exactly_is_found(base: Table) -> None:
    scores = np.array([[3, 2, 1], [1, 2, 3], [1, np.nan, np.nan], [np.nan, 1, np.nan], [np.nan, np.nan, 1]], float)
    [found] = average_ranks(made(base, scores, ["a", "b", "c"]))
    assert found.datasets == ["d0", "d1"] and set(found.ranks.index) == {"a", "b", "c"}


def test_many_sets_of_datasets_take_no_time(base: Table) -> None:
    """18 methods that each lack another of 18 datasets share 2^18 sets of them."""
    scores = np.where(np.eye(18), np.nan, np.arange(18.0))
    found = average_ranks(made(base, scores, [f"m{place:02}" for place in range(18)]))
    assert [len(each.datasets) for each in found] == list(range(2, 16))
    assert [len(each.ranks) for each in found] == list(range(16, 2, -1))


def test_what_may_not_be_ranked_is_left_out(base: Table) -> None:
    names, scores = ["a", "b", "c"], np.array([[1.0, 2, 3], [1, 3, 2]])
    assert len(average_ranks(made(base, scores, names))) == 1
    assert average_ranks(made(base, scores, names, ranked=[])) == []
    assert average_ranks(made(base, scores, names, ranked=["a", "b"])) == []
    assert average_ranks([*made(base, scores[:1], names), *made(base, scores, names, pretraining="unimodal")[1:]]) == []
    twice = [*made(base, scores, names), *made(base, scores[:1], names)]  # d0 under two protocols
    assert average_ranks(twice) == []
