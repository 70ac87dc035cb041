"""A trained method from the results, without its data and without a trainer."""

from pathlib import Path

from itmbench.methods.base import Matcher
from itmbench.store.result import CHECKPOINT


def checkpoint_file(path: str | Path) -> Path:
    """The checkpoint of a cell's folder, of the folder of a run of ``itmbench fit``, or a checkpoint itself."""
    file = Path(path)
    if not file.is_dir():
        return file
    in_run = file / "checkpoints" / CHECKPOINT
    return in_run if in_run.exists() else file / CHECKPOINT


def load(path: str | Path) -> Matcher:
    """The trained method of a cell's folder, the folder of a run of ``itmbench fit`` or a checkpoint file.

    It is on the CPU and in evaluation mode.

    Raises:
        InputError: there is no such checkpoint, it is damaged, would run code when read, names a class that is not
            trusted (`itmbench.options.build`), or does not say how it was built.
    """
    return Matcher.load_from_checkpoint(checkpoint_file(path)).eval()
