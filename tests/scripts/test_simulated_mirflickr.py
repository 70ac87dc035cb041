"""The script that simulates MirFlickr-25K's image features: what it writes is what its docstring says."""

import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.io import savemat

from itmbench.data.corpus import Corpus, Features
from itmbench.data.datasets import DCMHMatrices, FeatureFolder

SCRIPT = Path(__file__).parents[2] / "scripts" / "perf" / "simulated_mirflickr.py"


@pytest.fixture(scope="module")
def write() -> Callable[..., None]:
    made: Callable[..., None] = runpy.run_path(str(SCRIPT))["write"]
    return made


def features(corpus: Corpus) -> Any:
    assert isinstance(corpus.images, Features)
    return corpus.images.array[:]


def test_a_label_moves_an_image_along_a_direction_of_its_own(tmp_path: Path, write: Callable[..., None]) -> None:
    generator = np.random.default_rng(1)
    labels, tags = generator.integers(0, 2, (400, 5)), generator.integers(0, 2, (400, 30))
    savemat(tmp_path / "all.mat", {"LAll": labels.astype(np.uint8), "YAll": tags.astype(np.uint8)})
    made = {}
    for name, signal in (("none", 0.0), ("some", 3.0), ("again", 3.0)):
        write(tmp_path, tmp_path / name, dim=40, signal=signal, queries=50, train=200)
        made[name] = FeatureFolder(tmp_path / name).read()
    some, plain = made["some"], DCMHMatrices(tmp_path, queries=50, train=200).read()
    assert some.name == "some" and some.fingerprint == FeatureFolder(tmp_path / "again", "some").read().fingerprint
    noise, moved = features(made["none"]), features(some) - features(made["none"])
    assert abs(noise.mean()) < 0.05 and noise.var() == pytest.approx(1, abs=0.05)
    np.testing.assert_allclose(moved @ moved.T, 9 * labels @ labels.T, atol=1e-3)
    assert isinstance(some.texts, Features) and isinstance(plain.texts, Features)
    np.testing.assert_array_equal(some.texts.array[:], tags)
    np.testing.assert_array_equal(some.labels, labels)
    np.testing.assert_array_equal(some.train, plain.train)
    for stage in ("val", "test"):
        np.testing.assert_array_equal(some.stages[stage].queries, plain.stages[stage].queries)
        np.testing.assert_array_equal(some.stages[stage].gallery, plain.stages[stage].gallery)
