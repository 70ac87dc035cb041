"""Checkpoints read without running code that may be in them."""

import pickle
from pathlib import Path
from typing import Annotated, Any, NotRequired

import torch
from packaging.version import Version
from pydantic import AfterValidator, TypeAdapter, ValidationError
from torch import Tensor

from itmbench.errors import InputError, in_a_line
from itmbench.schema import keys

RESUMED = ("optimizer_states", "lr_schedulers", "loops")
"""What a training resumes from; best.ckpt has it as well."""


def _is_version(text: str) -> str:
    Version(text)
    return text


_LOOPS = ("fit_loop", "validate_loop", "test_loop", "predict_loop")
_CHECKPOINT: TypeAdapter[Any] = TypeAdapter(
    keys(  # Lightning relies on all of this
        **{"pytorch-lightning_version": Annotated[str, AfterValidator(_is_version)]},
        state_dict=dict[str, Any],
        epoch=NotRequired[int],
        global_step=NotRequired[int],
        loops=NotRequired[keys(**dict.fromkeys(_LOOPS, dict[str, Any]))],
        callbacks=NotRequired[dict[str, dict[str, Any]]],
        optimizer_states=NotRequired[list[keys(state=dict[Any, Any], param_groups=list[dict[str, Any]])]],  # type: ignore[misc]
        lr_schedulers=NotRequired[list[dict[str, Any]]],
        training=NotRequired[dict[str, Any]],
        hyper_parameters=NotRequired[dict[str, Any]],
    )
)


def read_checkpoint(file: str | Path, map_location: Any = "cpu") -> dict[str, Any]:
    """The content of a checkpoint; pickled code in it is refused, not run. Tensors on "meta" are not read.

    Raises:
        InputError: there is no such file, it is not a checkpoint of tensors and plain values, or a part of it has a
            type that Lightning would not write.
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
        raise InputError(
            f"{file}: not a checkpoint of tensors and plain values ({in_a_line(error)[:100]}); use a checkpoint of "
            "`itmbench fit`"
        ) from error
    if not isinstance(content, dict) or not isinstance(content.get("state_dict"), dict):
        raise InputError(f"{file}: not a checkpoint but {type(content).__name__}; use a checkpoint of `itmbench fit`")
    try:
        _CHECKPOINT.validate_python(content)
    except ValidationError as error:
        raise InputError(f"{file}: damaged ({in_a_line(error)}); use a checkpoint of `itmbench fit`") from None
    for name, value in content["state_dict"].items():
        if not isinstance(value, Tensor) and not name.endswith("_extra_state"):
            raise InputError(f"{file}: damaged ({name}: no tensor); use a checkpoint of `itmbench fit`")
    return content


def require_resumable(file: str | Path, content: dict[str, Any], max_epochs: int | None) -> None:
    """Raise an InputError if a checkpoint holds weights alone, or more epochs than are to be trained."""
    if missing := [name for name in RESUMED if name not in content]:
        raise InputError(f"{file}: no {', no '.join(missing)}, so no training resumes from it; give a last.ckpt")
    epochs = content.get("epoch", -1) + 1
    if max_epochs is not None and 0 <= max_epochs < epochs:
        raise InputError(f"{file}: has trained {epochs} epochs, more than trainer.max_epochs {max_epochs}; raise that")
