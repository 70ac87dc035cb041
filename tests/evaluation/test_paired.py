"""Intervals, p-values and corrections against scipy and plain loops."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from itmbench.errors import InputError
from itmbench.evaluation.paired import Difference, PairedResults, QueryTable, holm

Hits = NDArray[Any]


def table(hits: Hits, images: Hits | None = None, direction: str = "i2t") -> QueryTable:
    """A query table with rank 1 where a query hits and 9 where it does not, one query an image by default."""
    queries = np.arange(len(hits))
    return {
        "direction": np.full(len(hits), direction, dtype=object),
        "query": queries,
        "image": queries if images is None else images,
        "rank": np.where(hits, 1, 9),
    }


def difference(a: list[QueryTable], b: list[QueryTable], metric: str = "i2t/R@1") -> Difference:
    return PairedResults({"a": a, "b": b}, [metric]).difference("a", "b", metric)


def both_directions(seed: int) -> QueryTable:
    """60 images with 1 to 9 captions each; ranks and average precisions."""
    rng = np.random.default_rng(seed)
    owner = np.repeat(np.arange(60), np.random.default_rng(9).integers(1, 10, 60))
    image = np.concatenate([np.arange(60), owner])
    return {
        "direction": np.repeat(np.asarray(["i2t", "t2i"], dtype=object), [60, len(owner)]),
        "query": np.arange(len(image)),
        "image": image,
        "rank": rng.geometric(0.15 + 0.05 * seed, len(image)),
        "ap": rng.beta(2, 3 - seed, len(image)),
    }


def by_image(of: QueryTable, direction: str, values: Hits) -> tuple[Hits, Hits]:
    """Sum of values and number of queries of every image."""
    here = of["direction"] == direction
    return np.bincount(of["image"][here], values[here], 60), np.bincount(of["image"][here], minlength=60)


@pytest.mark.parametrize("metric", ["t2i/R@5", "rSum", "mAP"])
def test_means_differences_and_intervals_are_those_of_scipy(metric: str) -> None:
    """scipy resamples (sum, count) of each image; a metric is a sum of ratios of these."""
    all_terms: dict[str, list[tuple[str, int | None, float]]] = {
        "t2i/R@5": [("t2i", 5, 1.0)],
        "rSum": [(side, k, 100.0) for side in ("i2t", "t2i") for k in (1, 5, 10)],
        "mAP": [("i2t", None, 0.5), ("t2i", None, 0.5)],
    }
    terms = all_terms[metric]
    tables = both_directions(0), both_directions(1)
    columns = [
        column
        for of in tables
        for side, k, _ in terms
        for column in by_image(of, side, of["ap"] if k is None else of["rank"] <= k)
    ]
    weights = [weight for _, _, weight in terms]

    def mean(columns: Any, axis: int) -> Any:
        sums = [column.sum(axis) for column in columns]
        return sum(weight * sums[2 * i] / sums[2 * i + 1] for i, weight in enumerate(weights))

    def gain(*columns: Any, axis: int = -1) -> Any:
        return mean(columns[: 2 * len(terms)], axis) - mean(columns[2 * len(terms) :], axis)

    results = PairedResults({"a": [tables[0]], "b": [tables[1]]}, [metric, "i2t/R@1"])
    options: Any = {"paired": True, "method": "percentile", "n_resamples": 5000, "rng": 3}
    for got, value, columns_used, statistic in (
        (results.interval("a", metric), results.mean("a", metric), columns[: 2 * len(terms)], None),
        (results.difference("a", "b", metric)[1:3], results.difference("a", "b", metric).difference, columns, gain),
    ):
        compute = statistic or (lambda *columns, axis=-1: mean(columns, axis))
        expected = stats.bootstrap(columns_used, compute, **options).confidence_interval
        assert value == pytest.approx(compute(*columns_used))
        assert got == pytest.approx(tuple(expected), abs=0.06 * (expected.high - expected.low))


def test_seeds_that_disagree_widen_the_interval() -> None:
    rng = np.random.default_rng(0)
    hits = rng.random(1000) < 0.5
    good, bad = hits | (rng.random(1000) < 0.3), hits & (rng.random(1000) < 0.7)
    assert difference([table(hits)] * 2, [table(hits)] * 2) == pytest.approx((0, 0, 0, 1), abs=1e-12)
    apart = difference([table(good), table(bad)], [table(hits)] * 2)
    assert apart.low < -0.1 and apart.high > 0.1


def test_queries_are_matched_by_id_and_not_by_order() -> None:
    a, b = both_directions(0), both_directions(1)
    order = np.random.default_rng(0).permutation(len(b["query"]))
    assert difference([a], [{key: column[order] for key, column in b.items()}]) == difference([a], [b])
    with pytest.raises(InputError, match="a and b: different queries"):
        difference([a], [{key: column[1:] for key, column in b.items()}])
    with pytest.raises(InputError, match="i2t/MedR: not determined by the outcomes of single queries"):
        difference([a], [a], "i2t/MedR")


def test_a_metric_without_query_outcomes_is_nan_and_affects_no_other() -> None:
    rng = np.random.default_rng(0)
    a, b, c = rng.random((3, 50)) < [[0.7], [0.5], [0.5]]
    twins = {"a": [table(a, direction="hard")], "b": [table(b, direction="hard")], "c": [table(c)]}
    metric = "hard_negative_accuracy"
    results = PairedResults(twins, [metric, "i2t/R@1"])
    assert results.difference("a", "b", metric) == pytest.approx(difference(twins["a"], twins["b"], metric))
    assert results.difference("a", "b", metric).difference == pytest.approx(a.mean() - b.mean())
    missing = results.difference("a", "c", metric)
    assert np.isnan(missing).all() and missing.verdict == "untested" and np.isnan(results.interval("c", metric)).all()
    assert results.leaders(metric, ["c", "b", "a"])[0] == "a" and "c" not in results.leaders(metric, ["c", "b", "a"])
    assert results.leaders("i2t/R@1", ["a", "b"]) == []


def test_p_is_that_of_all_sign_flips_of_the_images() -> None:
    """Ten images with three queries and two seeds each: scipy enumerates all 1,024 sign patterns."""
    rng = np.random.default_rng(1)
    images = np.repeat(np.arange(10), 3)
    a, b = rng.random((2, 30)) < 0.6, rng.random((2, 30)) < 0.35
    tables = {name: [table(hits, images) for hits in seeds] for name, seeds in (("a", a), ("b", b))}
    p = PairedResults(tables, ["i2t/R@1"], comparisons=2000).difference("a", "b", "i2t/R@1").p
    x, y = (seeds.mean(0).reshape(10, 3).mean(1) for seeds in (a, b))
    exact = stats.permutation_test(
        (x, y), lambda x, y: (x - y).mean(), permutation_type="samples", n_resamples=10_000
    ).pvalue
    assert 0.005 < exact < 0.3
    assert p == pytest.approx(exact, abs=3 * np.sqrt(exact / 100_000))


def test_more_comparisons_draw_more_permutations_so_that_a_correction_can_be_passed() -> None:
    tables = {"a": [table(np.full(60, True))], "b": [table(np.full(60, False))]}
    for comparisons, permutations in ((1, 10_000), (1000, 50_000)):
        p = PairedResults(tables, ["i2t/R@1"], comparisons).difference("a", "b", "i2t/R@1").p
        assert p == pytest.approx(1 / (permutations + 1))


def test_leaders_are_those_not_significantly_worse_than_the_best() -> None:
    rng = np.random.default_rng(0)
    best = rng.random(400) < 0.6
    near = np.where(np.arange(400) % 50 == 0, ~best, best) & (np.arange(400) != best.argmax())
    hits = {"low": best & (rng.random(400) < 0.5), "near": near, "best": best}
    results = PairedResults({name: [table(of)] for name, of in hits.items()}, ["i2t/R@1"])
    assert results.leaders("i2t/R@1", ["low", "near", "best"]) == ["best", "near"]
    assert results.leaders("i2t/R@1", ["low"]) == ["low"]


def test_leaders_are_corrected_for_the_number_of_methods() -> None:
    """Each other method loses 20 queries and wins 8: p is .036 alone, and three times that of three."""
    best = np.arange(400) < 200
    others = {place: best.copy() for place in (0, 1, 2)}
    for place, hits in others.items():
        hits[20 * place : 20 * place + 20], hits[200 + 8 * place : 208 + 8 * place] = False, True
    results = PairedResults({"best": [table(best)]} | {str(i): [table(of)] for i, of in others.items()}, ["i2t/R@1"])
    assert results.leaders("i2t/R@1", ["best", "0"]) == ["best"]
    assert sorted(results.leaders("i2t/R@1", ["best", "0", "1", "2"])) == ["0", "1", "2", "best"]


def test_a_verdict_needs_the_test_and_the_interval() -> None:
    assert Difference(1, 0.1, 2, 0.04).verdict == "better"
    assert Difference(-1, -2, -0.1, 0.04).verdict == "worse"
    assert Difference(1, 0.1, 2, 0.05).verdict == Difference(1, -0.1, 2, 0.04).verdict == "not distinguishable"


def test_holm_is_the_step_down_procedure() -> None:
    rng = np.random.default_rng(0)
    for p in ([0.01, 0.04, 0.03, 0.005], list(rng.random(7)), list(rng.random(6) / 20), [0.7]):
        adjusted = holm(p)
        for level in np.linspace(0.001, 0.999, 500):
            rejected: set[int] = set()
            for place, at in enumerate(sorted(range(len(p)), key=p.__getitem__)):  # until the first that is kept
                if p[at] * (len(p) - place) > level:
                    break
                rejected.add(at)
            assert {at for at, value in enumerate(adjusted) if value <= level} == rejected
    assert holm([np.nan, 0.01, 0.02]) == pytest.approx([np.nan, 0.02, 0.02], nan_ok=True)
