import hashlib
import io
import os
import threading
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest

from itmbench.files import copy_folder, digest, file_digest, locked, write_atomically


def test_text_bytes_and_functions_are_written(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "file"
    write_atomically(path, "é\n")
    assert path.read_bytes() == "é\n".encode()
    write_atomically(path, b"\0")
    assert path.read_bytes() == b"\0"
    write_atomically(str(path), lambda file: np.save(file, np.arange(3)))
    assert np.load(io.BytesIO(path.read_bytes())).tolist() == [0, 1, 2]
    assert os.listdir(path.parent) == ["file"]
    os.link(path, tmp_path / "opened before")
    write_atomically(path, "new")
    assert len((tmp_path / "opened before").read_bytes()) > 3  # the old file is replaced, not rewritten
    write_atomically(tmp_path / ("x" * 255), "the longest name that file systems take")


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def fail(file: BinaryIO) -> None:
        file.write(b"half")
        assert path.read_text() == "old"
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_atomically(path, fail)
    assert path.read_text() == "old"
    (tmp_path / "folder" / "full").mkdir(parents=True)
    with pytest.raises(OSError, match="folder"):
        write_atomically(tmp_path / "folder", "a folder is in the way")
    with pytest.raises(OSError, match="file"):
        write_atomically(path / "below", "a file is in the way")
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]


def test_digests_tell_all_parts_apart(tmp_path: Path) -> None:
    numbers = np.arange(6, dtype=np.int64)
    parts: list[tuple[str | bytes | np.ndarray | None, ...]] = [
        (), (None,), ("",), (b"",), ("a", "b"), ("ab", ""), ("ab",), (b"ab",),
        (numbers,), (numbers.reshape(2, 3),), (numbers.astype(np.int32),), (numbers[:0],), (numbers[::-1],),
    ]  # fmt: skip
    assert len({digest(*each) for each in parts}) == len(parts)
    assert digest(np.repeat(numbers, 2)[::2]) == digest(numbers)  # whatever the strides
    assert len(digest("a")) == 16 and len(digest("a", size=4)) == 8
    (tmp_path / "file").write_bytes(b"content")
    assert file_digest(tmp_path / "file") == hashlib.blake2b(b"content", digest_size=16).hexdigest()


def test_links_become_what_they_lead_to(tmp_path: Path) -> None:
    (tmp_path / "real" / "below").mkdir(parents=True)
    (tmp_path / "real" / "below" / "file").write_text("content")
    folder = tmp_path / "folder"
    folder.mkdir()
    for name, target in (("one", "real"), ("two", "real/below"), ("file", "real/below/file")):
        (folder / name).symlink_to(tmp_path / target)
    copy_folder(folder, tmp_path / "copy")
    found = {str(path.relative_to(tmp_path / "copy")) for path in (tmp_path / "copy").rglob("*") if path.is_file()}
    assert found == {"one/below/file", "two/file", "file"}
    assert not any(path.is_symlink() for path in (tmp_path / "copy").rglob("*"))
    (tmp_path / "real" / "below" / "up").symlink_to(folder)
    with pytest.raises(OSError, match=r"Too many levels of symbolic links: .*up"):
        copy_folder(folder, tmp_path / "endless")


def test_a_folder_is_locked_by_one_thread_at_a_time(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    refused, waited = threading.Event(), threading.Event()

    def other() -> None:
        with pytest.raises(BlockingIOError), locked(tmp_path / "link", wait=False):
            pass
        refused.set()
        with locked(tmp_path):
            waited.set()

    thread = threading.Thread(target=other)
    with locked(tmp_path):
        thread.start()
        assert refused.wait(10) and not waited.wait(0.1)
    thread.join(10)
    assert waited.is_set()
