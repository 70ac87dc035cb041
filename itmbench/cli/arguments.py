"""What the parsers of several commands share."""

import argparse
import os
import sys
from textwrap import indent
from typing import Any, NoReturn

from itmbench.errors import InputError


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, and whose help ends with an example.

    Args:
        example: command lines, one a line.
        **kwargs: those of ``argparse.ArgumentParser``.
    """

    def __init__(self, example: str = "", **kwargs: Any) -> None:
        epilog = f"example:\n{indent(example, '  ')}" if example else None
        super().__init__(
            epilog=epilog, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False, **kwargs
        )

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{self.prog.removeprefix('itmbench ')}: {message}; see {self.prog} --help")


def add_results_folder(parser: argparse.ArgumentParser) -> None:
    """The option ``--results``."""
    parser.add_argument("--results", default="results", metavar="DIR", help="results folder (default: %(default)s)")


def import_from_here() -> None:
    """Let configs name a class in a file of the current folder: only for commands that take classes."""
    if (here := os.getcwd()) not in sys.path:
        sys.path.append(here)


def write_out(path: str, text: str) -> None:
    """Write the file that ``--out`` names.

    Raises:
        InputError: it cannot be written.
    """
    from itmbench.files import write_atomically

    try:
        write_atomically(path, text)
    except OSError as error:
        raise InputError(f"--out {path}: cannot be written ({error.strerror}); name another file") from None
