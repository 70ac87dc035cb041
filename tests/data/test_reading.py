import os
from pathlib import Path

import pytest

from itmbench.data.reading import listing, read_lines
from itmbench.errors import InputError


def test_lines_end_where_lines_end_and_nowhere_else(tmp_path: Path) -> None:
    path = tmp_path / "lines.txt"
    path.write_bytes("\ufeffa\r\n\n b\x0c\u2028c \nlast".encode())
    assert read_lines(path) == ["a", "", " b\x0c\u2028c ", "last"]
    path.write_bytes(b"")
    assert read_lines(path) == []


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"lines\.txt: no such file"):
        read_lines(tmp_path / "lines.txt")
    with pytest.raises(InputError, match="cannot be read"):
        read_lines(tmp_path)


def test_listing_reaches_one_level_and_follows_links(tmp_path: Path) -> None:
    (tmp_path / "sub" / "deep").mkdir(parents=True)
    for name, size in (("a", 1), ("sub/b", 2), ("sub/deep/c", 3)):
        (tmp_path / name).write_bytes(b"x" * size)
    os.symlink(tmp_path / "sub" / "b", tmp_path / "link")
    os.symlink(tmp_path / "nowhere", tmp_path / "broken")
    assert listing(tmp_path) == {"a": 1, "sub/b": 2, "link": 2}
