"""Ways to damage the files of a dataset, and the line with which its reader refuses them."""

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from layouts import write_lines
from refusal import LONGEST

from itmbench.data.corpus import Corpus
from itmbench.errors import InputError

Damage = Callable[[Path], Any]
"""Changes the files of a dataset in its folder."""
Cases = dict[str, tuple[Damage, str]]
"""What is damaged, and what the line names."""


def refused(read: Callable[[Path], Corpus], root: Path) -> str:
    """The one line with which a reader refuses a dataset."""
    with pytest.raises(InputError) as error:
        read(root)
    line = str(error.value).replace(str(root), "DIR")
    assert len(line) <= LONGEST and line.isprintable(), line
    return line


def write(name: str, content: Any) -> Damage:
    """Replace a file by bytes, or by a value as JSON."""
    data = content if isinstance(content, bytes) else json.dumps(content).encode()
    return lambda root: (root / name).write_bytes(data)


def lines(name: str, *content: object) -> Damage:
    """Replace a file by lines."""
    return lambda root: write_lines(root / name, content)


def remove(*names: str) -> Damage:
    def damage(root: Path) -> None:
        for name in names:
            (root / name).unlink()

    return damage


def instead(name: str, make: Damage) -> Damage:
    """Put something else in a file's place."""

    def damage(root: Path) -> None:
        (root / name).unlink()
        make(root / name)

    return damage


def npy(name: str, array: Any) -> Damage:
    """Replace a ``.npy`` file."""
    return lambda root: np.save(root / name, np.asarray(array))


def archive(name: str) -> Damage:
    """An ``.npz`` archive under another name."""

    def damage(root: Path) -> None:
        with (root / name).open("wb") as file:
            np.savez(file, np.ones(3))

    return damage


def header(name: str, shape: str) -> Damage:
    """A ``.npy`` file whose header claims a shape."""
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return write(name, b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text)


def changed(name: str, change: Callable[[Any], Any]) -> Damage:
    """A ``.npy`` file with other values."""
    return lambda root: np.save(root / name, change(np.load(root / name)))


def with_one(value: float, row: int = -1) -> Callable[[Any], Any]:
    """A value in one row of an array."""

    def change(array: Any) -> Any:
        array = array.astype(np.float64) if abs(value) > 1e38 else array.copy()
        array[row, ...] = value
        return array

    return change
