"""What the parsers of several commands share."""

import argparse
import atexit
import gc
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from textwrap import indent
from typing import Any, NoReturn

from itmbench.errors import InputError, did_you_mean, is_full


class Parser(argparse.ArgumentParser):
    """The parser of a command: its errors are one line, and its help ends with an example."""

    def __init__(self, command: str = "", example: str = "", **kwargs: Any) -> None:
        formatter = argparse.RawDescriptionHelpFormatter
        super().__init__(**{"prog": f"itmbench {command}"} | kwargs, formatter_class=formatter, allow_abbrev=False)
        self.epilog = f"example:\n{indent(example, '  ')}" if example else None

    def error(self, message: str) -> NoReturn:
        below = [action.choices for action in self._actions if isinstance(action, argparse._SubParsersAction)]
        parsers = [self, *(parser for choices in below for parser in choices.values())]
        options = [option for parser in parsers for option in parser._option_string_actions]
        raise InputError(refused(self.prog, message, options))


def refused(program: str, message: str, options: Iterable[str]) -> str:
    """What a parser says about arguments, with the option that may be meant and where its help is."""
    unknown = re.match(r"unrecognized arguments: (--[\w-]+)", message)
    hint = did_you_mean(unknown[1], options) if unknown else ""
    return f"{program.removeprefix('itmbench ')}: {message}; {hint}see {program} --help"


def add_results_folder(parser: argparse.ArgumentParser) -> None:
    """The option ``--results``."""
    parser.add_argument(
        "--results", default="results", type=path, metavar="DIR", help="results folder (default: %(default)s)"
    )


def add_only(parser: argparse.ArgumentParser, example: str) -> None:
    """The option ``--only``; one that is repeated adds its pairs."""
    help = f"such as {example}; the same key again, here or in another --only, means either"
    parser.add_argument("--only", default="", action=_Joined, metavar="KEY=NAME,…", help=help)


class _Joined(argparse.Action):
    """Joins the values of an option that is repeated by commas."""

    def __call__(self, parser: Any, namespace: argparse.Namespace, values: Any, option: str | None = None) -> None:
        before = getattr(namespace, self.dest)
        setattr(namespace, self.dest, f"{before},{values}" if before else values)


def add_out(parser: argparse.ArgumentParser, content: str) -> None:
    """The option ``--out``."""
    help = f"{content}; folders that are missing are created"
    parser.add_argument("--out", type=path, metavar="FILE", help=help)


def path(text: str) -> str:
    """The path that an option names; an empty one, as of a variable that is not set, is not the current folder."""
    if not text:
        raise argparse.ArgumentTypeError("names nothing; give a path")
    return text


@contextmanager
def imports() -> Iterator[None]:
    """Import torch and the rest without garbage collection, then or later: their many objects last to the end.

    Looking at them again and again would take a third of the time that a benchmark needs to plan.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
        atexit.register(gc.unfreeze)  # some of these packages complain at the end about objects that are left


def write_out(path: str | Path, content: str | bytes, inputs: Iterable[str | Path] = ()) -> None:
    """Write a file that the user may have named.

    Raises:
        InputError: it cannot be written, or would replace one of the ``inputs``, a file in one of them that is a
            folder, or a file of a cell.
        OSError: the disk is full.
    """
    from itmbench.files import real_path, write_atomically
    from itmbench.store.result import FILES, RESULT

    of_cell = Path(path).name in FILES and Path(path).with_name(RESULT).is_file()
    is_read = os.path.exists(path) and any(real_path(path).is_relative_to(real_path(read)) for read in inputs)
    if of_cell or is_read:
        what = "belongs to a result" if of_cell else "is read here"
        raise InputError(f"{path}: {what}, so it was not replaced; name another file")
    try:
        write_atomically(path, content)
    except (OSError, ValueError) as error:  # a ValueError where the path names no file, such as "."
        if is_full(error):
            raise
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"{path}: cannot be written ({reason}); name another file") from None
