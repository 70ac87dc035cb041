"""Atomic file writes and moves, locks and content digests."""

import contextlib
import errno
import hashlib
import os
import shutil
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray


def write_atomically(path: str | Path, content: str | bytes | Callable[[BinaryIO], object]) -> None:
    """Write a file so that readers see the old content or the whole new one; create missing parent folders.

    A device or a pipe, such as /dev/null, is written to, and never replaced by a file.

    Args:
        path: the file to create or replace.
        content: text (written as UTF-8), bytes, or a function that writes to the open binary file it is given.

    Raises:
        OSError: the file cannot be written; a file that was there before is untouched.
    """
    path = Path(path)
    if path.exists() and not path.is_file() and not path.is_dir():
        with naming(path), path.open("wb") as file:
            _write(file, content)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{uuid.uuid4().hex}.partial")  # unique, and short where the name itself is long
    try:
        with naming(path):
            with partial.open("xb") as file:
                _write(file, content)
            os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _write(file: BinaryIO, content: str | bytes | Callable[[BinaryIO], object]) -> None:
    if callable(content):
        content(file)
    else:
        file.write(content.encode() if isinstance(content, str) else content)


def move_folder(folder: Path, place: Path, scratch: Path) -> None:
    """Move a folder to a free place, where it appears when complete; ``scratch`` is for what comes from another disk.

    Raises:
        OSError: it cannot be moved, and is where it was.
    """
    try:
        os.rename(folder, place)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        scratch.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=scratch, prefix="scratch-", ignore_cleanup_errors=True) as temporary:
            copy = Path(temporary, place.name)
            copy_folder(folder, copy)
            os.rename(copy, place)
        shutil.rmtree(folder, ignore_errors=True)


def copy_folder(folder: Path, copy: Path, above: Sequence[Path] = ()) -> None:
    """Copy a folder, which lies in the real folders ``above``, with all that it holds; links become what they lead to.

    Raises:
        OSError: something cannot be copied, or a link leads to a folder that it lies in.
    """
    real = real_path(folder)
    if real in above:
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(folder))
    copy.mkdir()
    for path in sorted(folder.iterdir()):  # copytree would hide what a full disk says
        target = copy / path.name
        copy_folder(path, target, (*above, real)) if path.is_dir() else shutil.copy2(path, target)


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Add the path to errors that lack it: those of a full disk, and of torch and numpy.

    Raises:
        OSError: as in the context, or the cause of an error of torch or numpy.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        cause: BaseException | None = error
        if isinstance(error, RuntimeError):
            cause = error.__context__  # torch.save hides that the disk is full
        elif error.errno is None and "requested and" in str(error):
            cause = OSError(errno.ENOSPC, f"No space left on device ({error})")  # numpy's words for the same
        if not isinstance(cause, OSError):
            raise
        cause.filename = cause.filename or str(path)
        raise cause from None


def real_path(path: str | Path) -> Path:
    """The absolute path without links; unlike ``Path.resolve``, a loop of links is no error before it is opened."""
    return Path(os.path.realpath(path))


@contextlib.contextmanager
def locked(folder: Path, wait: bool = True) -> Iterator[None]:
    """Hold a lock on a folder, if the file system supports locks; it ends with the process, whatever its children do.

    Raises:
        BlockingIOError: another process or thread holds the lock, and this one is not to ``wait`` for it.
    """
    with _alone(folder, wait), (folder / ".lock").open("w") as file:
        try:
            import fcntl

            fcntl.lockf(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise
        except (ImportError, OSError):  # without locks two processes may do the same work
            pass
        yield


@contextlib.contextmanager
def _alone(folder: Path, wait: bool) -> Iterator[None]:
    """Keep other threads out: ``lockf`` does not, and drops the lock if another handle of the file is closed."""
    lock = _locks.setdefault((os.getpid(), real_path(folder)), threading.Lock())  # a fork has locks of its own
    if not lock.acquire(blocking=wait):
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN), str(folder))
    try:
        yield
    finally:
        lock.release()


_locks: dict[tuple[int, Path], threading.Lock] = {}


def digest(*parts: str | bytes | NDArray[Any] | None, size: int = 8) -> str:
    """BLAKE2b hash of a sequence of parts as ``2 * size`` hexadecimal digits.

    Each part is hashed with its type and its length or shape, so that ("ab", "c") differs from ("a", "bc").

    >>> digest("a", None, np.arange(3, dtype=np.int64), size=4)
    '784959c2'
    """
    hasher = hashlib.blake2b(digest_size=size)
    for part in parts:
        if part is None:
            hasher.update(b"none;")
        elif isinstance(part, str):
            data = part.encode()
            hasher.update(f"str {len(data)};".encode() + data)
        elif isinstance(part, bytes):
            hasher.update(f"bytes {len(part)};".encode() + part)
        else:
            hasher.update(f"array {part.shape} {part.dtype.str};".encode())
            hasher.update(np.ascontiguousarray(part).data if part.size else b"")
    return hasher.hexdigest()


def file_digest(path: str | Path) -> str:
    """BLAKE2b hash of the content of a file, 32 hexadecimal digits; an OSError if it cannot be read."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
