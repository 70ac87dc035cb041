"""Nothing that a test does reaches a hub, a tracker, or the user's own cache. This file comes before torch."""

import os
from pathlib import Path

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")  # tests run side by side, one a core
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ["WANDB_MODE"] = "offline"

import lightning.pytorch  # noqa: F401  its log keeps the stderr of its first import: that of a test is closed later
import pandas as pd
from results_store import write_store

from itmbench import store


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Corpora are parsed and rendered into a folder of this test run."""
    os.environ["ITMBENCH_CACHE"] = str(tmp_path_factory.getbasetemp().parent / "itmbench-cache")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real photographs and captions; tests that need them are skipped where they are absent."""
    folder = Path(os.environ.get("ITMBENCH_SHARED_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}; set ITMBENCH_SHARED_DATA to its folder")
    return folder


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder of two datasets, two methods, three seeds."""
    return write_store(tmp_path_factory.mktemp("results"))


@pytest.fixture(scope="session")
def frame(results: Path) -> pd.DataFrame:
    return store.load_results(results)
