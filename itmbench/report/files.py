"""Writing a report: whole or not at all."""

import os
import tempfile
from pathlib import Path

from itmbench.errors import InputError


def write_text(path: str | Path, text: str) -> Path:
    """Write a file so that a reader never sees half of it; folders above it are made.

    Raises:
        InputError: it cannot be written there.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".report") as folder:
            new = Path(folder, "new")
            new.write_text(text, encoding="utf-8")
            os.replace(new, path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror}); name another file with --out") from None
    return path
