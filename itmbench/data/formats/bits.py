"""Text files of zeros and ones, half a gigabyte of them in seconds."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from itmbench.errors import InputError

BLOCK_BYTES = 1 << 24


def read_bits(path: Path, columns: int) -> NDArray[np.uint8]:
    r"""A matrix of 0 and 1 `[rows, columns]`, one row a line, values separated by tabs.

    Lines may end in a further tab, and in ``\n`` or ``\r\n``. Blank lines are skipped.

    Raises:
        InputError: a line has another number of values, or one that is neither 0 nor 1; names the first such line.
    """
    matrix = _fixed_width(path, columns)
    return _line_by_line(path, columns) if matrix is None else matrix


def _fixed_width(path: Path, columns: int) -> NDArray[np.uint8] | None:
    """The matrix if every line has the shape of the first, byte for byte; otherwise None.

    Each byte is compared with a line of zeros: it may differ in the lowest bit where a digit belongs, nowhere else.
    """
    with path.open("rb") as file:
        first = file.readline()
        body = len(first.rstrip(b"\r\n"))
        ending = first[body:]
        rows, rest = divmod(path.stat().st_size, max(1, len(first)))
        if body not in (2 * columns - 1, 2 * columns) or rest not in (0, body):
            return None
        zeros = np.frombuffer((b"0\t" * columns)[:body] + ending, np.uint8)
        allowed = np.zeros(len(first), np.uint8)
        allowed[: 2 * columns : 2] = 1
        matrix = np.empty((rows + bool(rest), columns), np.uint8)
        lines = max(1, BLOCK_BYTES // len(first))
        file.seek(0)
        for start in range(0, len(matrix), lines):
            block = file.read(lines * len(first))
            if len(block) % len(first):
                block += ending
            difference = np.frombuffer(block, np.uint8).reshape(-1, len(first)) ^ zeros
            if (difference > allowed).any():
                return None
            matrix[start : start + lines] = difference[:, : 2 * columns : 2]
    return matrix


def _line_by_line(path: Path, columns: int) -> NDArray[np.uint8]:
    rows = []
    with path.open("rb") as file:
        for at, line in enumerate(file, start=1):
            values = line.split()
            if not values:
                continue
            if len(values) != columns:
                raise InputError(
                    f"{path}, line {at}: {len(values):,} values where {columns:,} belong; restore the original file"
                )
            odd = next((value for value in values if value not in (b"0", b"1")), None)
            if odd is not None:
                found = odd[:20].decode(errors="replace")
                raise InputError(f"{path}, line {at}: {found!r} where 0 or 1 belongs; restore the original file")
            rows.append(np.array(values) == b"1")
    return np.array(rows, dtype=np.uint8).reshape(-1, columns)
