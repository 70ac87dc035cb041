"""Differences against the metrics, against formulas and scipy, and what cannot be compared."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from itmbench.errors import InputError
from itmbench.report.paired import Difference, PairedResults, holm
from itmbench.store import PER_QUERY


def difference(a: Sequence[Path], b: Sequence[Path], metric: str) -> Difference:
    return PairedResults({"a": a, "b": b}, [metric]).difference("a", "b", metric)


def cells(results: Path, dataset: str, method: str) -> list[Path]:
    return [results / "mini" / dataset / method / f"seed{seed}" for seed in (0, 1)]


def write(folder: Path, hits: np.ndarray, images: np.ndarray | None = None, direction: str = "i2t") -> Path:
    folder.mkdir()
    queries = np.arange(len(hits))
    frame = pd.DataFrame(
        {
            "direction": direction,
            "query": queries,
            "image": queries if images is None else images,
            "rank": np.where(hits, 1, 9),
        }
    )
    frame.to_parquet(folder / PER_QUERY)
    return folder


@pytest.mark.parametrize(
    ("dataset", "metric"),
    [
        ("flickr30k-mini", "t2i/R@5"),
        ("flickr30k-mini", "i2t/R@10"),
        ("flickr30k-mini", "rSum"),
        ("mirflickr-mini", "t2i/mAP"),
        ("mirflickr-mini", "mAP"),
    ],
)
def test_the_difference_is_that_of_the_mean_metrics(
    results: Path, frame: pd.DataFrame, dataset: str, metric: str
) -> None:
    a, b = (cells(results, dataset, method) for method in ("dual_infonce", "dual_triplet"))
    found = difference(a, b, metric)
    values = frame.set_index("folder")[metric]
    expected = np.mean([values[str(folder)] for folder in a]) - np.mean([values[str(folder)] for folder in b])
    assert found.difference == pytest.approx(expected)
    assert found.low < found.difference < found.high
    turned = difference(b, a, metric)
    assert turned.difference == pytest.approx(-found.difference)
    width = found.high - found.low
    assert turned.low == pytest.approx(-found.high, abs=0.1 * width)


def test_a_result_does_not_differ_from_itself(results: Path) -> None:
    [a, _] = cells(results, "mirflickr-mini", "dual_infonce")
    assert difference([a], [a], "i2t/mAP") == pytest.approx((0, 0, 0, 1), abs=1e-12)


def test_near_twins_are_compared(tmp_path: Path) -> None:
    right = np.arange(200) % 4 > 0
    a = write(tmp_path / "a", right, direction="hard")
    b = write(tmp_path / "b", ~right, direction="hard")
    assert difference([a], [b], "hard_negative_accuracy").difference == pytest.approx(0.5)


def test_pairing_narrows_the_interval_to_that_of_the_differences(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    hits = rng.random(1000) < 0.5
    flipped = np.where(rng.random(1000) < 0.05, ~hits, hits)
    found = difference([write(tmp_path / "a", hits)], [write(tmp_path / "b", flipped)], "i2t/R@1")
    gains = hits.astype(float) - flipped
    normal = 1.96 * gains.std(ddof=1) / np.sqrt(1000)
    assert (found.high - found.low) / 2 == pytest.approx(normal, rel=0.1)


def test_queries_of_one_image_are_drawn_together(tmp_path: Path) -> None:
    """Five equal queries an image tell no more than one."""
    rng = np.random.default_rng(0)
    hits, other = rng.random(400) < 0.6, rng.random(400) < 0.5
    images = np.repeat(np.arange(400), 5)
    once = difference([write(tmp_path / "a", hits)], [write(tmp_path / "b", other)], "i2t/R@1")
    five = difference(
        [write(tmp_path / "c", np.repeat(hits, 5), images)], [write(tmp_path / "d", np.repeat(other, 5), images)],
        "i2t/R@1",
    )  # fmt: skip
    assert five == pytest.approx(once, rel=1e-5)


def test_seeds_that_disagree_widen_the_interval(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    hits = rng.random(1000) < 0.5
    good, bad = hits | (rng.random(1000) < 0.3), hits & (rng.random(1000) < 0.7)
    folders = [write(tmp_path / name, values) for name, values in (("hits", hits), ("good", good), ("bad", bad))]
    alike = difference([folders[0]] * 2, [folders[0]] * 2, "i2t/R@1")
    apart = difference(folders[1:], [folders[0]] * 2, "i2t/R@1")
    assert alike == pytest.approx((0, 0, 0, 1), abs=1e-12)
    assert apart.low < -0.1 and apart.high > 0.1


def test_queries_are_matched_by_id_and_not_by_order(results: Path, tmp_path: Path) -> None:
    a, b = (cells(results, "flickr30k-mini", method)[:1] for method in ("dual_infonce", "dual_triplet"))
    shuffled = tmp_path / "shuffled"
    shuffled.mkdir()
    pd.read_parquet(b[0] / PER_QUERY).sample(frac=1, random_state=0).to_parquet(shuffled / PER_QUERY)
    assert difference(a, [shuffled], "t2i/R@1") == difference(a, b, "t2i/R@1")


def test_what_cannot_be_compared_is_told_in_one_line(results: Path, tmp_path: Path) -> None:
    flickr, mirflickr = (cells(results, name, "dual_infonce") for name in ("flickr30k-mini", "mirflickr-mini"))
    with pytest.raises(InputError, match="i2t/MedR: cannot be compared query by query"):
        difference(flickr, flickr, "i2t/MedR")
    with pytest.raises(InputError, match="other queries"):
        difference([write(tmp_path / "more", np.ones(9, bool))], flickr, "i2t/R@1")
    assert np.isnan(difference(mirflickr, flickr, "i2t/R@1")).all()
    with pytest.raises(InputError, match="no such file"):
        difference([tmp_path], flickr, "i2t/R@1")
    with pytest.raises(InputError, match="other queries"):
        difference(flickr, [write(tmp_path / "few", np.ones(5, bool))], "i2t/R@1")
    old = write(tmp_path / "old", np.ones(5, bool))
    pd.read_parquet(old / PER_QUERY).drop(columns="image").to_parquet(old / PER_QUERY)
    with pytest.raises(InputError, match="run again what an older itmbench measured"):
        difference([old], [old], "i2t/R@1")
    (old / PER_QUERY).write_text("no table")
    with pytest.raises(InputError, match="cannot be read"):
        difference([old], [old], "i2t/R@1")


def test_a_metric_without_values_per_query_is_no_number_and_spoils_no_other(results: Path) -> None:
    flickr = cells(results, "flickr30k-mini", "dual_infonce")
    both = PairedResults({"a": flickr, "b": flickr}, ["mAP", "rSum"])
    assert np.isnan(both.difference("a", "b", "mAP")).all()
    assert both.difference("a", "b", "rSum").p == 1
    assert both.leaders("mAP", ["a", "b"]) == []


def test_one_result_without_a_direction_leaves_the_others_comparable(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    hits = rng.random((3, 50)) < [[0.7], [0.5], [0.5]]
    a, b, c = (write(tmp_path / name, of, direction="hard") for name, of in zip("abc", hits, strict=True))
    frame = pd.read_parquet(c / PER_QUERY)
    frame.assign(direction="i2t").to_parquet(c / PER_QUERY)
    found = PairedResults({"a": [a], "b": [b], "c": [c]}, ["hard_negative_accuracy"])
    alone = PairedResults({"a": [a], "b": [b]}, ["hard_negative_accuracy"])
    assert found.difference("a", "b", "hard_negative_accuracy") == alone.difference("a", "b", "hard_negative_accuracy")
    assert np.isnan(found.difference("a", "c", "hard_negative_accuracy").p)
    assert 0.005 < alone.difference("a", "b", "hard_negative_accuracy").p < 0.5
    assert found.leaders("hard_negative_accuracy", ["c", "b", "a"])[0] == "a"
    assert "c" not in found.leaders("hard_negative_accuracy", ["c", "b", "a"])


def test_p_is_that_of_all_sign_flips_of_the_images(tmp_path: Path) -> None:
    """Ten images with three queries and two seeds each: scipy goes through all 1,024 signs."""
    rng = np.random.default_rng(1)
    images = np.repeat(np.arange(10), 3)
    a, b = rng.random((2, 30)) < 0.6, rng.random((2, 30)) < 0.35
    folders = {
        name: [write(tmp_path / f"{name}{seed}", of, images) for seed, of in enumerate(seeds)]
        for name, seeds in (("a", a), ("b", b))
    }
    found = PairedResults(folders, ["i2t/R@1"], comparisons=2000).difference("a", "b", "i2t/R@1")
    x, y = (of.mean(0).reshape(10, 3).mean(1) for of in (a, b))
    exact = stats.permutation_test(
        (x, y), lambda x, y: (x - y).mean(), permutation_type="samples", n_resamples=10_000
    ).pvalue
    assert 0.005 < exact < 0.3
    assert found.p == pytest.approx(exact, abs=3 * np.sqrt(exact / 100_000))


def test_more_tests_draw_more_permutations_so_that_a_correction_can_be_passed(tmp_path: Path) -> None:
    a, b = (write(tmp_path / name, np.full(60, hit)) for name, hit in (("a", True), ("b", False)))
    one, many = (PairedResults({"a": [a], "b": [b]}, ["i2t/R@1"], tests).difference("a", "b", "i2t/R@1").p
                 for tests in (1, 1000))  # fmt: skip
    assert one == pytest.approx(1 / 10_001) and many == pytest.approx(1 / 50_001)
    assert 1000 * one > 0.05 > 1000 * many


def test_leaders_are_those_not_significantly_worse_than_the_best(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    best = rng.random(400) < 0.6
    near = np.where(np.arange(400) % 50 == 0, ~best, best) & (np.arange(400) != best.argmax())
    folders = {
        "low": [write(tmp_path / "low", best & (rng.random(400) < 0.5))],
        "near": [write(tmp_path / "near", near)],
        "best": [write(tmp_path / "best", best)],
    }
    found = PairedResults(folders, ["i2t/R@1"])
    assert found.leaders("i2t/R@1", ["low", "near", "best"]) == ["best", "near"]
    assert found.leaders("i2t/R@1", ["low"]) == ["low"]


def test_more_than_luck_needs_the_test_and_the_interval() -> None:
    assert Difference(1, 0.1, 2, 0.01).is_more_than_luck(0.04)
    assert Difference(-1, -2, -0.1, 0.01).is_more_than_luck(0.04)
    assert not Difference(1, 0.1, 2, 0.01).is_more_than_luck(0.05)
    assert not Difference(1, -0.1, 2, 0.01).is_more_than_luck(0.04)


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
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([np.nan, 0.01, 0.02]) == pytest.approx([np.nan, 0.02, 0.02], nan_ok=True)
