"""The script that evaluates at NUS-WIDE's size, sized down."""

import runpy
import sys
from argparse import Namespace
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "scripts" / "perf"


@pytest.mark.parametrize("name", ["sedra", "scan", "sgraf"])
def test_every_method_is_measured(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    measure = runpy.run_path(str(FOLDER / "evaluate_at_scale.py"))["measure"]
    sys.modules.pop("timing")
    options = Namespace(images=400, regions=9, words=4, dim=16, queries=3, device="cpu")
    size, _, on_gpu, rate = measure(name, options)
    width = 16 + (name == "sedra")
    assert size == pytest.approx(400 * width * (9 * 2 + 4) / 1e9) and on_gpu == 0 and rate > 0
