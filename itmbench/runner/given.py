"""Configs and folders as the user gave them: what is refused before LightningCLI reads or writes them."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import fields
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

from itmbench.errors import InputError
from itmbench.evaluation.protocol import CaptionProtocol, LabelProtocol
from itmbench.runner.spec import load_yaml


def config_files(arguments: Any) -> list[str]:
    """The files that ``--config`` names among the arguments of a command."""
    if not isinstance(arguments, Sequence):
        return []
    words = [str(word) for word in arguments]
    apart = [value for option, value in pairwise(words) if option in ("--config", "-c")]
    return apart + [word.partition("=")[2] for word in words if word.startswith("--config=")]


def require_sound_configs(arguments: Any) -> None:
    """Check what jsonargparse would take without a word, or not survive: cycles, bombs, an undecided protocol.

    Args:
        arguments: of a command, or the config of a cell.

    Raises:
        InputError: names the file.
    """
    if isinstance(arguments, Mapping):
        _require_decided_protocol(arguments, "model.protocol")
        return
    for file in config_files(arguments):
        _require_decided_protocol(load_yaml(Path(file)), f"{file}: model.protocol")
    for word in arguments or ():
        option, _, value = str(word).partition("=")
        if option == "--model.protocol" and value.startswith("{"):
            try:
                protocol = yaml.safe_load(value)
            except yaml.YAMLError:
                continue  # which the parser says better
            _require_decided_protocol({"model": {"protocol": protocol}}, option)


def require_ranks() -> None:
    """Check the numbers that a launcher gives to each process.

    Raises:
        InputError: one is no number.
    """
    for name in ("LOCAL_RANK", "NODE_RANK"):
        if not os.environ.get(name, "0").isdecimal():
            raise InputError(f"{name}={os.environ[name]}: is no number of a process; unset it, or use torchrun")


def _require_decided_protocol(config: Any, where: str) -> None:
    """Refuse options that both protocols have: jsonargparse would take the first, captions, for any data."""
    model = config.get("model") if isinstance(config, Mapping) else None
    arguments = model.get("init_args", model) if isinstance(model, Mapping) else None
    protocol = arguments.get("protocol") if isinstance(arguments, Mapping) else None
    if not isinstance(protocol, Mapping) or "class_path" in protocol:
        return
    captions, labels = ({field.name for field in fields(kind)} for kind in (CaptionProtocol, LabelProtocol))
    if not set(protocol) - (captions & labels):
        raise InputError(
            f"{where}: {dict(protocol)} may mean captions or labels; leave it out for the protocol of the data, or add "
            "an option of one of them, such as ks or cutoffs"
        )


def require_unused(files: Sequence[Path]) -> None:
    """Check that a new run replaces no file of another one.

    Raises:
        InputError: it would.
    """
    there = next((path for path in files if path.exists()), None)
    if there is not None:
        raise InputError(
            f"{there}: belongs to another run, or is yours; give this run another --trainer.default_root_dir, or "
            "resume that one with --ckpt_path and its last.ckpt"
        )
