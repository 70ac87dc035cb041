from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from results_store import save, write_store

from itmbench import store


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results folder of two datasets, two methods, two seeds."""
    return write_store(tmp_path_factory.mktemp("results"))


@pytest.fixture(scope="session")
def frame(results: Path) -> pd.DataFrame:
    return store.load_results(results)


@pytest.fixture
def more(results: Path, tmp_path: Path) -> Callable[..., pd.DataFrame]:
    """A store of one more cell a call, made of an existing one with some fields changed; gives its frame."""
    base = store.Result.load(results / "mini" / "flickr30k-mini" / "dual_triplet" / "seed0")

    def make(**changes: object) -> pd.DataFrame:
        result = replace(base, **changes)  # type: ignore[arg-type]
        save(result, tmp_path / "more" / result.benchmark / result.dataset / result.method / f"seed{result.seed}")
        return store.load_results(tmp_path / "more")

    return make
