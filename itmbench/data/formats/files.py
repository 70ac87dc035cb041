"""Reading text, JSON and folders so that what is wrong is said in one line: which file, which line, what to do."""

import gzip
import json
import os
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from itmbench.data.corpus import ImageFiles
from itmbench.errors import InputError


def require(paths: Iterable[Path], layout: str) -> None:
    """Checks that files and folders exist.

    Args:
        paths: what must be there.
        layout: one phrase that tells the user what the folder should look like.

    Raises:
        InputError: names everything that is missing.
    """
    missing = [str(path) for path in paths if not path.exists()]
    if missing:
        raise InputError(f"missing: {', '.join(missing)}; expected {layout}")


def read_text(path: Path) -> str:
    """The text of a UTF-8 file, unpacked if its name ends in ``.gz``; a byte order mark is dropped.

    Raises:
        InputError: the file is missing, unreadable, damaged or not UTF-8.
    """
    try:
        data = path.read_bytes()
        if path.suffix == ".gz":
            data = gzip.decompress(data)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; restore it or correct the path") from None
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: cannot be read ({error}); restore the file") from None
    try:
        return data.decode().removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(
            f"{path}, line {line}: byte 0x{data[error.start]:02x} is not UTF-8; restore the original file or convert it"
        ) from None


def read_lines(path: Path) -> list[str]:
    r"""The lines of a UTF-8 file without their ``\n`` or ``\r\n``.

    Only these end a line: `str.splitlines` would also split at the form feeds and Unicode separators that
    user-written captions and tags contain, and shift every line after them.

    Raises:
        InputError: as `read_text`.
    """
    lines = read_text(path).split("\n")
    if not lines[-1]:
        lines.pop()
    return [line.removesuffix("\r") for line in lines]


def read_json(path: Path, unique: bool = False) -> Any:
    """The content of a JSON file, packed with gzip or not.

    Args:
        path: the file.
        unique: refuse objects with a key twice, of which the last would count.

    Raises:
        InputError: as `read_text`, or the text is not JSON.
    """

    def read_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        require_unique([key for key, _ in pairs], str(path))
        return dict(pairs)

    try:
        return json.loads(read_text(path), object_pairs_hook=read_object if unique else None)
    except json.JSONDecodeError as error:
        raise InputError(
            f"{path}, line {error.lineno}, column {error.colno}: not JSON ({error.msg}); restore the original file"
        ) from None
    except InputError:
        raise
    except (RecursionError, ValueError) as error:  # lists in lists without end, a number of thousands of digits
        raise InputError(f"{path}: cannot be read ({error}); restore the original file") from None


def read_integers(path: Path, lowest: int, highest: int, what: str) -> list[int]:
    """The whole numbers of a file with one a line; blank lines are skipped.

    Raises:
        InputError: as `read_text`, or a line is not a number between ``lowest`` and ``highest``.
    """
    numbers = []
    for at, line in enumerate(read_lines(path), start=1):
        word = line.strip()
        if not word:
            continue
        if not word.isdecimal():
            raise InputError(f"{path}, line {at}: {word!r} is not {what}; restore the original file")
        if not lowest <= int(word) <= highest:
            raise InputError(f"{path}, line {at}: {word} is not {what}, which run from {lowest} to {highest}")
        numbers.append(int(word))
    return numbers


def require_unique(ids: Sequence[str], where: str) -> None:
    """Checks that no id occurs twice.

    Raises:
        InputError: names the first id that does.
    """
    seen: set[str] = set()
    for each in ids:
        if each in seen:
            raise InputError(f"{where}: {each!r} occurs twice; every id must be unique")
        seen.add(each)


def listing(folder: Path) -> dict[str, int]:
    """Bytes of every file in a folder and its direct subfolders, by its name below the folder (`"sub/a.jpg"`)."""
    sizes = {}
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_file():
                sizes[entry.name] = entry.stat().st_size
            elif entry.is_dir():
                with os.scandir(entry.path) as inner:
                    sizes.update({f"{entry.name}/{file.name}": file.stat().st_size for file in inner if file.is_file()})
    return sizes


def image_files(folder: Path, names: Sequence[str], sizes: dict[str, int] | None = None) -> ImageFiles:
    """The named images of a folder, each known to be there.

    Args:
        folder: where they are.
        names: path of every image below ``folder``.
        sizes: the folder's `listing`, where the caller has it already.

    Raises:
        InputError: images are missing or empty files.
    """
    sizes = listing(folder) if sizes is None else sizes
    missing = [name for name in names if name not in sizes]
    if missing:
        raise InputError(
            f"{folder}: {len(missing):,} of {len(names):,} images are missing, the first is {missing[0]}; "
            "complete the folder or name another one"
        )
    empty = next((name for name in names if not sizes[name]), None)
    if empty is not None:
        raise InputError(f"{folder / empty}: the file is empty; replace it with a good copy")
    return ImageFiles(folder, names, np.array([sizes[name] for name in names], dtype=np.int64))


def first_folder(candidates: Iterable[Path]) -> Path | None:
    """The first of the folders that exists."""
    return next((path for path in candidates if path.is_dir()), None)
