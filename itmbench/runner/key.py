"""A cell's key: a hash of all that can change its result, so that a cell runs again exactly when something has."""

import hashlib
import importlib
import json
from collections.abc import Iterator
from typing import Any

from itmbench.data.batches import EpochOrder
from itmbench.data.corpus import Corpus
from itmbench.evaluation.protocol import protocol_for
from itmbench.runner.callbacks import SeedEpochs
from itmbench.runner.code import code_digest
from itmbench.store.environment import own_package

VERSION = 1
"""Raise it when the runner itself changes what a cell computes; its own code is in no key."""

LEFT_OUT = (
    # where things are written, and what is shown
    "trainer.logger",
    "trainer.default_root_dir",
    "trainer.enable_progress_bar",
    "trainer.enable_model_summary",
    "trainer.log_every_n_steps",
    "trainer.profiler",
    "best.dirpath",
    "best.verbose",
    "last",
    "embeddings",
    # how quickly data come: training draws the same whatever loads it
    "data.init_args.num_workers",
    # where data lie: what lies there is in the fingerprint
    "data.init_args.root",
    "data.init_args.images",
    "data.init_args.annotations",
)
"""Options that cannot change a result."""


def cell_key(config: dict[str, Any], corpus: Corpus) -> str:
    """16 hex digits over the resolved config, the data, the protocol and the code.

    Args:
        config: with all defaults, as ``config.yaml`` of a cell holds it.
        corpus: that it trains and tests on.
    """
    classes = [SeedEpochs, EpochOrder, *_classes(config)]
    kept = _without(config, LEFT_OUT)
    parts = [VERSION, kept, corpus.fingerprint, protocol_for(corpus).as_dict(), code_digest(classes)]
    return hashlib.blake2b(json.dumps(parts, sort_keys=True, default=str).encode(), digest_size=8).hexdigest()


def _classes(config: Any) -> Iterator[type]:
    """Every class that a config names, but for those of the packages whose versions are recorded."""
    if isinstance(config, dict):
        path = config.get("class_path")
        if isinstance(path, str) and own_package(path) is not None:
            module, _, name = path.rpartition(".")
            yield getattr(importlib.import_module(module), name)
        for value in config.values():
            yield from _classes(value)
    elif isinstance(config, list):
        for value in config:
            yield from _classes(value)


def _without(config: dict[str, Any], paths: tuple[str, ...]) -> dict[str, Any]:
    """A config without the options of these dotted paths."""
    kept = {}
    for key, value in config.items():
        below = tuple(path.partition(".")[2] for path in paths if path.partition(".")[0] == key)
        if "" not in below:
            kept[key] = _without(value, below) if below and isinstance(value, dict) else value
    return kept
