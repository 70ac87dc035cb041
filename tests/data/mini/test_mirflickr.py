from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from itmbench.data.mini.mirflickr import labels, render_mirflickr
from itmbench.data.mini.scene import COLOURS, SHAPES, Scene, Thing

ROWS = 400


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("corpus") / "mirflickr-mini"
    render_mirflickr(root, 0, images=ROWS)
    return root


def test_images_tags_and_their_counts(root: Path) -> None:
    images = sorted((root / "mirflickr").glob("*.jpg"))
    assert {path.name for path in images} == {f"im{number}.jpg" for number in range(1, ROWS + 1)}
    assert {Image.open(path).convert("RGB").size for path in images} == {(64, 64)}
    files = sorted((root / "mirflickr/meta/tags").iterdir())
    assert {path.name for path in files} == {f"tags{number}.txt" for number in range(1, ROWS + 1)}
    counts = Counter(tag for path in files for tag in path.read_text().splitlines())
    listed = [line.split() for line in (root / "mirflickr/doc/common_tags.txt").read_text().splitlines()]
    assert {tag: int(count) for tag, count in listed} == {tag: n for tag, n in counts.items() if n >= 20}
    assert {1, 19, 20} <= set(counts.values())  # both sides of the threshold


def test_annotations(root: Path) -> None:
    folder = root / "mirflickr25k_annotations_v080"
    rows = {path.stem: [int(line) for line in path.read_text().splitlines()] for path in folder.glob("[!R]*.txt")}
    for name, numbers in rows.items():
        assert numbers == sorted(set(numbers)) and 1 <= numbers[0] <= numbers[-1] <= ROWS
        assert not name.endswith("_r1") or set(numbers) < set(rows[name[:-3]])
    potential = [name for name in rows if not name.endswith("_r1")]
    assert len(potential) == 24 and set(rows) - set(potential) == {f"{name}_r1" for name in (*SHAPES, *COLOURS)}
    multi_hot = np.array([np.isin(np.arange(1, ROWS + 1), rows[name]) for name in potential], dtype=float).T
    assert 3 <= multi_hot.sum(1).mean() <= 4.2
    assert 0.4 <= (multi_hot @ multi_hot.T > 0).mean() <= 0.55  # random chance


def test_labels_of_hand_made_scenes() -> None:
    small_star, large_cross = Thing("star", "pink", "small", 0, 0), Thing("cross", "blue", "large", 0, 1)
    assert labels(Scene((small_star, large_cross), "wavy", "night")) == {
        "star": False, "cross": True, "blue": True, "wavy": False, "night": False, "side_by_side": False,
    }  # fmt: skip
    large_ring = Thing("ring", "red", "large", 1, 1)
    assert labels(Scene((large_cross, large_ring), "plain", "day")) == {
        "cross": True, "ring": True, "blue": False, "red": False, "giants": False, "stacked": False,
    }  # fmt: skip
