from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from results_store import save

from itmbench import store


@pytest.fixture
def more(results: Path, tmp_path: Path) -> Callable[..., pd.DataFrame]:
    """Save one more cell with some fields changed; returns the results of all cells made so."""
    base = store.Result.load(results / "mini" / "flickr30k-mini" / "dual_triplet" / "seed0")

    def make(**changes: object) -> pd.DataFrame:
        result = replace(base, **changes)  # type: ignore[arg-type]
        save(result, tmp_path / "more" / result.benchmark / result.dataset / result.method / f"seed{result.seed}")
        return store.load_results(tmp_path / "more")

    return make
