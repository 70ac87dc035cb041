"""File readers whose errors name the file, the line and what to do."""

import gzip
import json
import os
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from itmbench.data.corpus import ImageFiles, Stage
from itmbench.data.sources import SOURCES
from itmbench.errors import InputError, MissingImages

CHUNK = 1 << 22
"""Numbers of a file that are checked at once."""
MOST_TEXT = 1 << 26
"""Bytes that a small compressed file may expand to; a large one, to a hundred times its size."""


def require(paths: Iterable[Path], layout: str) -> None:
    """Raise an InputError that names all missing files and folders, and the expected ``layout``."""
    try:
        missing = [str(path) for path in paths if not path.exists()]
    except (OSError, ValueError) as error:  # a name that is too long, or holds a zero byte
        raise InputError(f"{layout}: cannot be looked for ({error!s:.80}); correct the path") from None
    if missing:
        raise InputError(f"missing: {', '.join(missing)}; expected {layout}")


def require_prepared(root: Path) -> None:
    """Check that the folder of a dataset that `itmbench data prepare` knows holds anything.

    Raises:
        InputError: there is no such folder, or nothing in it.
    """
    if not root.is_dir() or not any(root.iterdir()):
        options = f" {root.name} --root {root}" if root.name in SOURCES else ""
        problem = "no dataset here" if root.is_dir() else "no such folder"
        raise InputError(f"{root}: {problem}; give that of the dataset, or get it by `itmbench data prepare{options}`")


def read_text(path: Path) -> str:
    """Read a UTF-8 file, decompressed if its name ends in ``.gz``, without a byte order mark.

    Raises:
        InputError: the file is missing, unreadable, damaged or not UTF-8, or expands to too much.
    """
    try:
        if path.suffix == ".gz":
            most = max(MOST_TEXT, 100 * path.stat().st_size)
            with gzip.open(path) as file:
                data = file.read(most + 1)
            if len(data) > most:
                raise InputError(f"{path}: becomes more than {most:,} bytes of text; restore the original file")
        else:
            data = path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; correct the path or add the file") from None
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
    r"""Read the lines of a UTF-8 file without their ``\n`` or ``\r\n``.

    Nothing else ends a line. `str.splitlines` would also split at form feeds and Unicode separators, which occur in
    captions and tags, and thereby misalign the lines after them.

    Raises:
        InputError: as in `read_text`.
    """
    lines = read_text(path).split("\n")
    if not lines[-1]:
        lines.pop()
    return [line.removesuffix("\r") for line in lines]


def read_json(path: Path, unique: bool = False) -> Any:
    """Parse a JSON file, plain or compressed with gzip; ``unique`` refuses objects in which a key occurs twice.

    Raises:
        InputError: as in `read_text`, or the text is not JSON.
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
    except (RecursionError, ValueError) as error:  # deeply nested lists, numbers with thousands of digits
        raise InputError(f"{path}: cannot be read ({error}); restore the original file") from None


def read_integers(path: Path, lowest: int, highest: int, what: str) -> list[int]:
    """Read a file with one integer per line; blank lines are skipped. ``what`` names the numbers in the message.

    Raises:
        InputError: as in `read_text`, or a line is not a number between ``lowest`` and ``highest``.
    """
    values = []
    for number, line in enumerate(read_lines(path), start=1):
        word = line.strip()
        if not word:
            continue
        if not (word.isascii() and word.isdecimal() and len(word) < 20):
            raise InputError(f"{path}, line {number}: {word[:30]!r} is not {what}; restore the original file")
        if not lowest <= int(word) <= highest:
            raise InputError(f"{path}, line {number}: {word} is not {what} from {lowest} to {highest}; correct it")
        values.append(int(word))
    return values


def require_unique(ids: Sequence[str], where: str) -> None:
    """Raise an InputError that names the first id that occurs twice."""
    seen: set[str] = set()
    for item_id in ids:
        if item_id in seen:
            raise InputError(f"{where}: {item_id!r} occurs twice; every id must be unique")
        seen.add(item_id)


def require_finite(where: str, array: NDArray[Any]) -> None:
    """Check that an array `[N, ...]` holds numbers that are finite in float32, in which features are read.

    Raises:
        InputError: it holds something else; names the first such row.
    """
    if array.dtype.kind not in "buif":
        raise InputError(f"{where}: holds {array.dtype}; expected one row of numbers an item")
    if array.dtype.kind != "f" or not array.size:
        return
    step = max(1, CHUNK // array[0].size)
    for start in range(0, len(array), step):
        with np.errstate(over="ignore"):
            block = array[start : start + step].astype(np.float32)
        bad = np.flatnonzero(~np.isfinite(block).reshape(len(block), -1).all(axis=1))
        if len(bad):
            raise InputError(
                f"{where}: row {start + bad[0]} holds NaN, infinity or a number too large for float32; "
                "repair or remove the row"
            )


def is_unicode(text: str) -> bool:
    """Whether a text can be written as UTF-8; JSON may hold halves of surrogate pairs."""
    return not any("\ud800" <= letter <= "\udfff" for letter in text)


def unmatched_queries(labels: NDArray[np.uint8], stage: Stage) -> int:
    """Number of queries of a stage that share no label `[N, C]` with another item of its gallery."""
    query, gallery = stage.queries, stage.gallery
    others = labels[gallery].sum(0, dtype=np.int64) - labels[query] * np.isin(query, gallery)[:, None].astype(np.int64)
    return int((~((labels[query] > 0) & (others > 0)).any(axis=1)).sum())


def require_shared_labels(labels: NDArray[np.uint8], stages: Mapping[str, Stage], source: Path) -> None:
    """Check that labels, multi-hot `[N, C]`, can tell relevant items from others; ``source`` is their file.

    Raises:
        InputError: there is only one label, or no query of a stage shares one with another item.
    """
    if labels.shape[1] == 1:
        raise InputError(f"{source}: there is only one label, so everything is relevant; give two or more, or none")
    for name, stage in stages.items():
        if unmatched_queries(labels, stage) == len(stage.queries):
            raise InputError(
                f"{source}: no {name} query shares a label with another image of the gallery; check the labels, or "
                "remove them to retrieve pairs"
            )


def listing(folder: Path) -> dict[str, int]:
    """Sizes in bytes of the files in a folder and its direct subfolders, by relative path such as ``"sub/a.jpg"``."""
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
    """Find images by their paths below a folder; ``sizes`` is its `listing`, if the caller has it already.

    Raises:
        MissingImages: images are missing.
        InputError: an image is an empty file.
    """
    sizes = listing(folder) if sizes is None else sizes
    missing = [name for name in names if name not in sizes]
    if missing:
        which = f"is missing, {missing[0]}" if len(missing) == 1 else f"are missing, the first is {missing[0]}"
        raise MissingImages(
            f"{folder}: {len(missing):,} of {len(names):,} images {which}; complete the folder or name another one",
            missing,
        )
    empty = next((name for name in names if not sizes[name]), None)
    if empty is not None:
        raise InputError(f"{folder / empty}: the file is empty; replace it with a good copy")
    return ImageFiles(folder, names, np.array([sizes[name] for name in names], dtype=np.int64))


def first_folder(candidates: Iterable[Path]) -> Path | None:
    """The first folder that exists, or None."""
    return next((path for path in candidates if path.is_dir()), None)


def read_bits(path: Path, columns: int) -> NDArray[np.uint8]:
    r"""Read a matrix of 0 and 1 `[rows, columns]` with one row per line and values separated by tabs.

    Lines may have a trailing tab and end in ``\n`` or ``\r\n``. Blank lines are skipped.

    Raises:
        InputError: a line has another number of values, or a value other than 0 and 1; names the first such line.
    """
    content = path.read_bytes()
    if not content.endswith(b"\n"):
        content += b"\r\n" if b"\r\n" in content[: 3 * columns] else b"\n"
    width = content.find(b"\n") + 1
    if width >= 2 * columns and len(content) % width == 0:  # as it is where all lines are like the first
        lines = np.frombuffer(content, np.uint8).reshape(-1, width)
        digits, tabs, ends = lines[:, : 2 * columns : 2], lines[:, 1 : 2 * columns - 1 : 2], lines[:, 2 * columns - 1 :]
        blank = not ends[0].tobytes().strip() and (ends == ends[0]).all()
        if blank and (tabs == ord("\t")).all() and ((digits | 1) == ord("1")).all():
            return np.bitwise_and(digits, 1, dtype=np.uint8)
    rows = []
    for number, line in enumerate(content.split(b"\n"), start=1):
        values = line.split()
        if not values:
            continue
        if len(values) != columns:
            raise InputError(
                f"{path}, line {number}: {len(values):,} values instead of {columns:,}; restore the original file"
            )
        odd = next((value for value in values if value not in (b"0", b"1")), None)
        if odd is not None:
            text = odd[:20].decode(errors="replace")
            raise InputError(f"{path}, line {number}: {text!r} instead of 0 or 1; restore the original file")
        rows.append(np.array(values) == b"1")
    return np.array(rows, dtype=np.uint8).reshape(-1, columns)
