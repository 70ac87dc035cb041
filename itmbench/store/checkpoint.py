"""A trained method from the results, without its data and without a trainer."""

from pathlib import Path

from itmbench.errors import InputError
from itmbench.methods.base import Matcher
from itmbench.store.result import CHECKPOINT, CONFIG

LEVELS = 5
"""Folders between a results folder, or one of runs, and a checkpoint, at most."""
NAMED = 4
"""Trained models that an error names, at most."""


def checkpoint_file(path: str | Path) -> Path:
    """The checkpoint of a cell's folder, of the folder of a run of ``itmbench fit``, or a checkpoint itself.

    Raises:
        InputError: the folder has none; the message names some that lie below it.
    """
    folder = Path(path)
    if not folder.is_dir():
        return folder
    file = next((file for file in (folder / "checkpoints" / CHECKPOINT, folder / CHECKPOINT) if file.exists()), None)
    if file is not None:
        return file
    files = sorted(file for level in range(1, LEVELS + 1) for file in folder.glob("[!.]*/" * level + CHECKPOINT))
    below = [str(file.parent.parent if file.parent.name == "checkpoints" else file.parent) for file in files]
    which = ", ".join(below[:NAMED]) or "the folder of a cell or of a run, or a checkpoint"
    more = f" or one of {len(below) - NAMED} more below it" if below[NAMED:] else ""
    raise InputError(f"{path}: no {CHECKPOINT} here; give {which}{more}")


def as_options(path: str | Path) -> list[str]:
    """A trained model as options of ``itmbench test``.

    Args:
        path: as in `checkpoint_file`.

    Raises:
        InputError: there is no checkpoint, or no config beside it.
    """
    file = checkpoint_file(path)
    folder = next((folder for folder in file.parents[:2] if (folder / CONFIG).is_file()), None)
    if folder is None:
        raise InputError(f"{path}: no trained model with its {CONFIG}; give the folder of a cell or of a run")
    return ["--config", str(folder / CONFIG), "--ckpt_path", str(file)]


def load(path: str | Path) -> Matcher:
    """The trained method of a cell's folder, the folder of a run of ``itmbench fit`` or a checkpoint file.

    It is on the CPU and in evaluation mode.

    Raises:
        InputError: there is no such checkpoint, it is damaged, would run code when read, names a class that is not
            trusted (`itmbench.options.build`), or does not say how it was built.
    """
    return Matcher.load_from_checkpoint(checkpoint_file(path)).eval()
