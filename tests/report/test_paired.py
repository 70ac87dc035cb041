"""Differences against the metrics, against formulas, and what cannot be compared."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from itmbench.bench.store import PER_QUERY
from itmbench.errors import InputError
from itmbench.report.paired import difference


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
    assert difference([a], [a], "i2t/mAP") == pytest.approx((0, 0, 0), abs=1e-12)


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
    assert five == pytest.approx(once)


def test_seeds_that_disagree_widen_the_interval(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    hits = rng.random(1000) < 0.5
    good, bad = hits | (rng.random(1000) < 0.3), hits & (rng.random(1000) < 0.7)
    folders = [write(tmp_path / name, values) for name, values in (("hits", hits), ("good", good), ("bad", bad))]
    alike = difference([folders[0]] * 2, [folders[0]] * 2, "i2t/R@1")
    apart = difference(folders[1:], [folders[0]] * 2, "i2t/R@1")
    assert alike == pytest.approx((0, 0, 0), abs=1e-12)
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
    with pytest.raises(InputError, match="nothing that i2t/R@1 needs"):
        difference(mirflickr, flickr, "i2t/R@1")
    with pytest.raises(InputError, match="no such file"):
        difference([tmp_path], flickr, "i2t/R@1")
    with pytest.raises(InputError, match="other queries"):
        difference(flickr, [write(tmp_path / "few", np.ones(5, bool))], "i2t/R@1")
