"""Checkpoints read without running code that may be in them."""

import pickle
from pathlib import Path
from typing import Any

import torch

from itmbench.errors import InputError


def read_checkpoint(file: str | Path, map_location: Any = "cpu") -> dict[str, Any]:
    """The content of a checkpoint; pickled code in it is refused, not run.

    Args:
        file: written by ``itmbench fit`` or a benchmark.
        map_location: of the tensors; "meta" reads none of them.

    Raises:
        InputError: there is no such file, or it is not a checkpoint of tensors and plain values.
    """
    if not Path(file).is_file():
        raise InputError(f"{file}: no such checkpoint; give a file that `itmbench fit` has written, or a cell's folder")
    try:
        content = torch.load(file, weights_only=True, map_location=map_location, mmap=True)
    except pickle.UnpicklingError as error:
        raise InputError(
            f"{file}: damaged, or contains pickled code, which is never run; use a checkpoint of `itmbench fit`"
        ) from error
    except (RuntimeError, EOFError, OSError, LookupError, ValueError) as error:
        reason = " ".join(str(error).split())[:100] or type(error).__name__
        raise InputError(
            f"{file}: not a checkpoint of tensors and plain values ({reason}); use a checkpoint of `itmbench fit`"
        ) from error
    if not isinstance(content, dict) or not isinstance(content.get("state_dict"), dict):
        raise InputError(f"{file}: not a checkpoint but {type(content).__name__}; use a checkpoint of `itmbench fit`")
    return content
