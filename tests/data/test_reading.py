import gzip
import os
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from itmbench.data.reading import listing, read_bits, read_lines, read_text
from itmbench.errors import InputError


def test_only_newlines_end_a_line(tmp_path: Path) -> None:
    path = tmp_path / "lines.txt"
    path.write_bytes("\ufeffa\r\n\n b\x0c\u2028c \nlast".encode())
    assert read_lines(path) == ["a", "", " b\x0c\u2028c ", "last"]
    path.write_bytes(b"")
    assert read_lines(path) == []


def test_unreadable_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"lines\.txt: no such file"):
        read_text(tmp_path / "lines.txt")
    (tmp_path / "cut.gz").write_bytes(gzip.compress(b"{}" * 1000)[:-10])
    for path in (tmp_path, tmp_path / "cut.gz"):
        with pytest.raises(InputError, match="cannot be read"):
            read_text(path)


def test_listing_reaches_one_level_and_follows_links(tmp_path: Path) -> None:
    (tmp_path / "sub" / "deep").mkdir(parents=True)
    for name, size in (("a", 1), ("sub/b", 2), ("sub/deep/c", 3)):
        (tmp_path / name).write_bytes(b"x" * size)
    os.symlink(tmp_path / "sub" / "b", tmp_path / "link")
    os.symlink(tmp_path / "nowhere", tmp_path / "broken")
    assert listing(tmp_path) == {"a": 1, "sub/b": 2, "link": 2}


@given(
    rows=st.integers(1, 40), columns=st.integers(1, 5), trailing=st.booleans(), ending=st.sampled_from(["\n", "\r\n"]),
    last=st.booleans(),
)  # fmt: skip
def test_every_layout_of_bits_reads_the_same(rows: int, columns: int, trailing: bool, ending: str, last: bool) -> None:
    expected = np.random.default_rng(rows * columns).integers(0, 2, (rows, columns))
    text = ending.join("\t".join(map(str, row)) + "\t" * trailing for row in expected) + ending * last
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "bits.txt")
        path.write_bytes(text.encode())
        np.testing.assert_array_equal(read_bits(path, columns), expected)


def test_irregular_and_blank_lines_of_bits_are_read(tmp_path: Path) -> None:
    path = tmp_path / "bits.txt"
    path.write_bytes(b"0\t1\t\n1\t1\r\n\n0  1\n\n")
    assert read_bits(path, 2).tolist() == [[0, 1], [1, 1], [0, 1]]
    path.write_bytes(b"")
    assert read_bits(path, 2).shape == (0, 2)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b"0\t2\t\n", "'2'"),
        (b"0\tx\t\n", "'x'"),
        (b"0\t\xff\t\n", "'\ufffd'"),
        (b"0\t1\t1\n", "3 values instead of 2"),
        (b"0\n", "1 values instead of 2"),
        (b"0\x081\t\n", "1 values instead of 2"),  # one bit from a tab
        (b"01\t\t\n", "1 values instead of 2"),
    ],
)
def test_the_first_wrong_line_of_bits_is_named(tmp_path: Path, line: bytes, problem: str) -> None:
    path = tmp_path / "bits.txt"
    path.write_bytes(b"0\t1\t\n" * 899 + line + b"0\t1\t\n" * 100)
    with pytest.raises(InputError, match=f"line 900: {problem}"):
        read_bits(path, 2)
