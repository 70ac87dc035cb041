from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from itmbench.bench.store import PER_QUERY
from itmbench.errors import InputError
from itmbench.report.paired import difference


def cell(results: Path, dataset: str, method: str, seed: int = 0) -> Path:
    return results / "mini" / dataset / method / f"seed{seed}"


def write(folder: Path, hits: np.ndarray) -> Path:
    folder.mkdir()
    ranks = pd.DataFrame({"direction": "i2t", "query": range(len(hits)), "rank": np.where(hits, 1, 9)})
    ranks.to_parquet(folder / PER_QUERY)
    return folder


@pytest.mark.parametrize(
    ("dataset", "metric"),
    [("flickr30k-mini", "t2i/R@5"), ("flickr30k-mini", "i2t/R@10"), ("mirflickr-mini", "t2i/mAP")],
)
def test_the_difference_is_that_of_the_metrics(results: Path, frame: pd.DataFrame, dataset: str, metric: str) -> None:
    a, b = (cell(results, dataset, method) for method in ("dual_infonce", "dual_triplet"))
    found = difference(a, b, metric)
    values = frame.set_index("folder")[metric]
    assert found.difference == pytest.approx(values[str(a)] - values[str(b)])
    assert found.low < found.difference < found.high
    turned = difference(b, a, metric)
    assert turned.difference == pytest.approx(-found.difference)
    assert turned.low == pytest.approx(-found.high, abs=0.01)


def test_a_result_does_not_differ_from_itself(results: Path) -> None:
    a = cell(results, "mirflickr-mini", "dual_infonce")
    assert difference(a, a, "i2t/mAP") == (0, 0, 0)


def test_pairing_narrows_the_interval_to_that_of_the_differences(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    hits = rng.random(1000) < 0.5
    flipped = np.where(rng.random(1000) < 0.05, ~hits, hits)
    found = difference(write(tmp_path / "a", hits), write(tmp_path / "b", flipped), "i2t/R@1")
    gains = hits.astype(float) - flipped
    normal = 1.96 * gains.std(ddof=1) / np.sqrt(1000)
    assert (found.high - found.low) / 2 == pytest.approx(normal, rel=0.1)
    unpaired = 1.96 * np.sqrt(2 * 0.25 / 1000)
    assert found.high - found.low < unpaired  # half the width, at most, of the interval without pairing


def test_queries_are_matched_by_id_and_not_by_order(results: Path, tmp_path: Path) -> None:
    a, b = (cell(results, "flickr30k-mini", method) for method in ("dual_infonce", "dual_triplet"))
    shuffled = tmp_path / "shuffled"
    shuffled.mkdir()
    pd.read_parquet(b / PER_QUERY).sample(frac=1, random_state=0).to_parquet(shuffled / PER_QUERY)
    assert difference(a, shuffled, "t2i/R@1") == difference(a, b, "t2i/R@1")


def test_what_cannot_be_compared_is_told_in_one_line(results: Path, tmp_path: Path) -> None:
    flickr, mirflickr = cell(results, "flickr30k-mini", "dual_infonce"), cell(results, "mirflickr-mini", "dual_infonce")
    with pytest.raises(InputError, match="rSum: cannot be compared query by query"):
        difference(flickr, flickr, "rSum")
    with pytest.raises(InputError, match="no column rank"):
        difference(mirflickr, flickr, "i2t/R@1")
    with pytest.raises(InputError, match="no such file"):
        difference(tmp_path, flickr, "i2t/R@1")
    with pytest.raises(InputError, match="other queries"):
        difference(flickr, write(tmp_path / "few", np.ones(5, bool)), "i2t/R@1")
