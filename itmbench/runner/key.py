"""A cell's key: a hash of everything that can change its result. A cell runs again when its key changes."""

import json
from typing import Any

from itmbench.data.corpus import Corpus
from itmbench.evaluation.protocol import protocol_for
from itmbench.files import digest
from itmbench.methods.trained import Trained
from itmbench.options import IRRELEVANT
from itmbench.runner.code import class_paths, code_digest

VERSION = 2
"""Raise it when the runner itself changes what a cell computes; its own code is in no key."""

LEFT_OUT = (
    # where files are written, and what is shown
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
    # how fast data are loaded: batches are the same whatever loads them
    "data.init_args.num_workers",
    # where data lie: their content is in the fingerprint
    "data.init_args.root",
    "data.init_args.images",
    "data.init_args.annotations",
)
"""Options that cannot change a result."""


ALWAYS = ("itmbench.methods.base.Matcher", "itmbench.data.datamodule.CorpusDataModule")
"""Classes that every cell uses, whatever its config names: training, evaluation, encoders, loaders."""


def cell_key(config: dict[str, Any], corpus: Corpus) -> str:
    """16 hexadecimal digits over the config with all its defaults, the data, the protocol and the code."""
    code = code_digest([*ALWAYS, *class_paths(config)])
    parts = [VERSION, _without(config, LEFT_OUT), corpus.fingerprint, protocol_for(corpus).as_dict(), code]
    return digest(json.dumps(parts, sort_keys=True, default=str))


def without_switchable(config: dict[str, Any], model: Trained) -> dict[str, Any]:
    """A config without the options of the method that leave its training steps as they are, such as ``votes``.

    The common ones (`itmbench.options.IRRELEVANT`), such as the learning rate, do change them.
    """
    return _without(config, tuple(f"model.init_args.{name}" for name in model.switchable - IRRELEVANT))


def _without(config: dict[str, Any], paths: tuple[str, ...]) -> dict[str, Any]:
    """A config without the options at some dotted paths."""
    kept = {}
    for key, value in config.items():
        below = tuple(path.partition(".")[2] for path in paths if path.partition(".")[0] == key)
        if "" not in below:
            kept[key] = _without(value, below) if below and isinstance(value, dict) else value
    return kept
