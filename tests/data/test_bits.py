import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from itmbench.data import reading as bits
from itmbench.data.reading import read_bits
from itmbench.errors import InputError


def matrix(rows: int, columns: int) -> np.ndarray:
    return np.random.default_rng(rows * columns).integers(0, 2, (rows, columns))


@given(
    rows=st.integers(1, 40), columns=st.integers(1, 5), trailing=st.booleans(), ending=st.sampled_from(["\n", "\r\n"]),
    last=st.booleans(), block=st.integers(1, 64),
)  # fmt: skip
def test_every_form_of_the_file_reads_the_same(
    rows: int, columns: int, trailing: bool, ending: str, last: bool, block: int
) -> None:
    expected = matrix(rows, columns)
    text = ending.join("\t".join(map(str, row)) + "\t" * trailing for row in expected) + ending * last
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(bits, "BLOCK_BYTES", block)
        path = Path(folder, "bits.txt")
        path.write_bytes(text.encode())
        np.testing.assert_array_equal(read_bits(path, columns), expected)
        fast = bits._fixed_width(path, columns)
        assert fast is not None
        np.testing.assert_array_equal(fast, expected)


def test_irregular_lines_and_blank_ones_are_read_all_the_same(tmp_path: Path) -> None:
    path = tmp_path / "bits.txt"
    path.write_bytes(b"0\t1\t\n1\t1\r\n\n0  1\n\n")
    assert read_bits(path, 2).tolist() == [[0, 1], [1, 1], [0, 1]]
    path.write_bytes(b"")
    assert read_bits(path, 2).shape == (0, 2)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"0\t2\t\n", "line 900: '2'"),
        (b"0\tx\t\n", "line 900: 'x'"),
        (b"0\t\xff\t\n", "line 900: '\ufffd'"),
        (b"0\t1\t1\n", "line 900: 3 values where 2 belong"),
        (b"0 1\n", None),
        (b"0\n", "line 900: 1 values where 2 belong"),
        (b"0\x081\t\n", "line 900: 1 values where 2 belong"),  # one bit from a tab
        (b"01\t\t\n", "line 900: 1 values where 2 belong"),
    ],
)
def test_the_first_bad_line_is_named(tmp_path: Path, line: bytes, message: str | None) -> None:
    path = tmp_path / "bits.txt"
    path.write_bytes(b"0\t1\t\n" * 899 + line + b"0\t1\t\n" * 100)
    if message is None:
        assert read_bits(path, 2).shape == (1000, 2)
    else:
        with pytest.raises(InputError, match=message):
            read_bits(path, 2)
