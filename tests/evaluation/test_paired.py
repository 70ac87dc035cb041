"""Means, intervals and p-values from tables of queries, against scipy."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from itmbench.errors import InputError
from itmbench.evaluation.paired import Difference, PairedResults, QueryTable, p_in_words

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
    return PairedResults({"a": a, "b": b}, [metric], fixed="ab").difference("a", "b", metric)


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

    results = PairedResults({"a": [tables[0]], "b": [tables[1]]}, [metric], fixed="ab")
    options: Any = {"paired": True, "method": "percentile", "n_resamples": 5000, "rng": 3}
    for got, value, columns_used, statistic in (
        (results.interval("a", metric), results.mean("a", metric), columns[: 2 * len(terms)], None),
        (results.difference("a", "b", metric)[1:3], results.difference("a", "b", metric).difference, columns, gain),
    ):
        compute = statistic or (lambda *columns, axis=-1: mean(columns, axis))
        expected = stats.bootstrap(columns_used, compute, **options).confidence_interval
        assert value == pytest.approx(compute(*columns_used))
        assert got == pytest.approx(tuple(expected), abs=0.09 * (expected.high - expected.low))


def test_the_interval_of_a_metric_covers_images_and_seeds() -> None:
    rng = np.random.default_rng(0)
    means = rng.normal(0.5, 0.1, 4)
    runs = [table(rng.random(4000) < mean) for mean in means]
    of_seeds = stats.t.interval(0.95, 3, means.mean(), means.std(ddof=1) / 2)  # 4,000 images add next to nothing
    assert PairedResults({"a": runs}, ["i2t/R@1"]).interval("a", "i2t/R@1") == pytest.approx(of_seeds, abs=0.03)
    low, high = PairedResults({"a": [table(np.arange(40) > 0)]}, ["i2t/R@1"]).interval("a", "i2t/R@1")
    assert 0.9 < low < 0.95 and high == 1


def test_a_group_is_one_observation() -> None:
    """Queries copied within their group tell nothing new; copied into groups of their own, they seem to."""
    rng = np.random.default_rng(0)
    a, b = rng.random((2, 50)) < [[0.6], [0.4]]
    once = difference([table(a)], [table(b)])
    rows = np.arange(200)
    groups = np.repeat(np.arange(50), 4).astype(str).astype(object)
    copies = [{**table(np.repeat(hits, 4), rows), "group": groups} for hits in (a, b)]
    copied = difference([copies[0]], [copies[1]])
    assert copied[:3] == pytest.approx(once[:3], abs=0.01) and copied.p == pytest.approx(once.p, abs=0.015)
    alone = [{key: column for key, column in copy.items() if key != "group"} for copy in copies]  # an older result
    assert difference([alone[0]], [alone[1]]).p < once.p / 2
    with pytest.raises(InputError, match="a and b: different groups of images"):
        difference([copies[0]], [{**copies[1], "group": groups[::-1]}])


def test_one_group_says_nothing_about_others() -> None:
    one, other = ({**table(np.arange(4) < hits), "group": np.zeros(4, int)} for hits in (1, 3))
    assert PairedResults({"a": [one]}, ["i2t/R@1"]).interval("a", "i2t/R@1") == (0, 1)
    assert difference([other], [one])[:3] == (0.5, -1, 1)


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
    results = PairedResults(twins, [metric, "i2t/R@1"], fixed="abc")
    alone = difference(twins["a"], twins["b"], metric)
    assert results.difference("a", "b", metric)[:3] == pytest.approx(alone[:3], abs=0.03)  # resampled otherwise
    assert results.difference("a", "b", metric).difference == pytest.approx(a.mean() - b.mean())
    missing = results.difference("a", "c", metric)
    assert np.isnan(missing).all() and missing.verdict == "untested" and np.isnan(results.interval("c", metric)).all()
    assert results.leaders(metric, ["c", "b", "a"])[0] == "a" and "c" not in results.leaders(metric, ["c", "b", "a"])
    assert results.leaders("i2t/R@1", ["a", "b"]) == []
    assert np.isnan(results.mean("c", metric))


def test_p_is_that_of_all_sign_flips_of_the_groups() -> None:
    """Ten images with three queries each: scipy enumerates all 1,024 sign patterns."""
    rng = np.random.default_rng(1)
    images = np.repeat(np.arange(10), 3)
    a, b = rng.random(30) < 0.6, rng.random(30) < 0.3
    x, y = (hits.reshape(10, 3).mean(1) for hits in (a, b))
    exact = stats.permutation_test(
        (x, y), lambda x, y: (x - y).mean(), permutation_type="samples", n_resamples=10_000
    ).pvalue
    assert 0.005 < exact < 0.3
    p = difference([table(a, images)], [table(b, images)]).p
    assert p == pytest.approx(exact, abs=3 * np.sqrt(exact / 5_000))


def test_queries_that_all_agree_give_the_smallest_p() -> None:
    everything = difference([table(np.full(60, True))], [table(np.full(60, False))])
    assert everything.p == 1 / 5_000 and everything.verdict == "better"
    assert "p <= 0.0002): better" in str(everything)
    assert p_in_words(2 / 5_000) == "= 0.0004"


def test_fewer_than_three_seeds_are_not_tested() -> None:
    rng = np.random.default_rng(0)
    good, bad = ([table(rng.random(400) < share) for _ in range(3)] for share in (0.6, 0.3))
    results = PairedResults({"good": good, "bad": bad[:2], "fixed": bad[:1]}, ["i2t/R@1"], fixed=["fixed"])
    untested = results.difference("good", "bad", "i2t/R@1")
    assert untested.verdict == "untested" and np.isnan(untested[1:]).all() and untested.difference > 0.2
    assert results.difference("good", "fixed", "i2t/R@1").verdict == "better"
    assert results.leaders("i2t/R@1", ["bad", "good", "fixed"]) == ["good"]
    assert results.tested(["bad", "good", "fixed"]) == 2


def test_leaders_are_those_that_no_other_is_better_than() -> None:
    rng = np.random.default_rng(0)
    best = rng.random(400) < 0.6
    near = np.where(np.arange(400) % 50 == 0, ~best, best) & (np.arange(400) != best.argmax())
    hits = {"low": best & (rng.random(400) < 0.5), "near": near, "best": best}
    results = PairedResults({name: [table(of)] for name, of in hits.items()}, ["i2t/R@1"], fixed=hits)
    assert results.leaders("i2t/R@1", ["low", "near", "best"]) == ["near", "best"]
    assert results.leaders("i2t/R@1", ["low"]) == ["low"]
    assert results.difference("low", "best", "i2t/R@1") == pytest.approx(
        [-1, -1, -1, 1] * np.asarray(results.difference("best", "low", "i2t/R@1"))[[0, 2, 1, 3]]
    )


def test_a_verdict_follows_p() -> None:
    assert Difference(1, 0.1, 2, 0.04).verdict == "better"
    assert Difference(-1, -2, -0.1, 0.04).verdict == "worse"
    assert Difference(1, -0.1, 2, 0.05).verdict == "not distinguishable"
