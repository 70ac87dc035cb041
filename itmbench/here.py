"""Classes in files of the current folder: configs and such files may import them, installed packages never."""

import os
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

RESOLVERS = {"jsonargparse._util", "itmbench.runner.code", "itmbench.runner.done"}
"""Installed modules that import what a config names."""
IMPORT_SYSTEM = ("<frozen ", os.path.join(os.path.dirname(os.__file__), "importlib", ""))
"""Beginnings of the file names of Python's own import code."""


class _Finder:
    """Finds modules of a folder; a meta path finder.

    pandas, for one, imports an optional ``bottleneck``, and would run a file of that name in the folder.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: object = None) -> ModuleSpec | None:
        """The module, if code of the folder or a config asks for it."""
        if path is not None:  # a part of a package, which is found by the package
            return None
        frame = sys._getframe(1)
        while frame.f_back is not None and frame.f_code.co_filename.startswith(IMPORT_SYSTEM):
            frame = frame.f_back
        ours = Path(frame.f_code.co_filename).is_relative_to(self.folder) and not sys.prefix.startswith(self.folder)
        if not ours and frame.f_globals.get("__name__") not in RESOLVERS:
            return None
        return PathFinder.find_spec(name, [self.folder])


def import_from_here() -> None:
    """Let configs name a class in a file of the current folder: only for commands that take classes."""
    here = os.getcwd()
    if not any(isinstance(finder, _Finder) and finder.folder == here for finder in sys.meta_path):
        sys.meta_path.append(_Finder(here))
