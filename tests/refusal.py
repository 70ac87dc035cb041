"""What every hostile case asks for: one clear line, the right exit code, and nothing left behind."""

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from itmbench.cli.main import main

LONGEST = 610
"""Characters of a line that is still read; folders of the tests are counted as five."""


def refusal(command: Sequence[str], capsys: pytest.CaptureFixture[str], folder: Path, code: int = 2) -> str:
    """The line with which a command refuses its input.

    Args:
        command: arguments of ``itmbench``.
        capsys: what it prints.
        folder: of the test; in the line it stands as "DIR".
        code: the expected exit code.
    """
    before = files(folder)
    assert main(command) == code
    error = capsys.readouterr().err
    said = [line for line in error.splitlines() if line.startswith("itmbench: ")]
    assert said, error
    line = said[-1].removeprefix("itmbench: ").replace(str(folder), "DIR")
    assert "Traceback" not in error and len(line) <= LONGEST and line.isprintable(), line
    assert files(folder) == before, "the refused command left files"
    return line


def files(folder: Path) -> set[str]:
    """Paths of all files below a folder, without the results' own records of what runs."""
    found = set[str]()
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name not in (".running", ".cache")]
        found |= {os.path.join(place, name) for name in names}
    return found
