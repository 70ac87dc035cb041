"""Untrusted archives -> the files that a dataset needs."""

import gzip
import io
import logging
import lzma
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO

from itmbench.errors import InputError
from itmbench.files import naming
from itmbench.logs import Progress
from itmbench.units import size as as_size

log = logging.getLogger(__name__)

MOST_MEMBERS = 2_000_000
LONGEST_HEADER = 1 << 20
"""Most bytes of a tar archive that are read into memory at once."""
DAMAGE = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    gzip.BadGzipFile,
    NotImplementedError,
    RuntimeError,  # what zipfile raises for encrypted members
    ValueError,
)


@dataclass(frozen=True)
class _Member:
    """A file or folder in an archive."""

    name: str
    size: int
    is_file: bool
    is_folder: bool
    open: Callable[[], IO[bytes] | None]


def unpack(archive: Path, files: Mapping[str, str], folder: Path, limit: int) -> dict[str, int]:
    """Unpack the files that a dataset needs into an empty folder.

    Args:
        archive: a zip archive, or a tar archive, plain or compressed with gzip.
        files: patterns of paths, and the folder below ``folder`` for the files of each, as in `sources.Archive`.
        folder: its content is undefined after an error.
        limit: most bytes that all members may have together.

    Returns:
        The size of every file by its path below ``folder``.

    Raises:
        InputError: the archive is damaged or encrypted, has too many members or bytes, links, devices or paths that
            lead out of it, two files of one name, or no file of a pattern.
        OSError: a file cannot be read or written.
    """
    sizes: dict[str, int] = {}
    missing, total, progress = set(files), 0, Progress(log, archive.name, None, "{:,} files".format)
    try:
        for number, member in enumerate(_members(archive), start=1):
            path = PurePosixPath(member.name.replace("\\", "/"))
            if path.is_absolute() or ".." in path.parts:
                raise InputError(f"{archive}: {member.name!r} leads out of the folder; do not use this archive")
            if not member.is_file and not member.is_folder:
                raise InputError(f"{archive}: {member.name!r} is a link or a device; do not use this archive")
            total += member.size
            if number > MOST_MEMBERS or total > limit:
                raise InputError(
                    f"{archive}: more than {as_size(limit)} or {MOST_MEMBERS:,} files when unpacked; it cannot be "
                    "the original"
                )
            pattern = next((pattern for pattern in files if path.match(pattern)), None)
            if member.is_folder or pattern is None or path.name.startswith(".") or path.parts[0] == "__MACOSX":
                continue
            target = PurePosixPath(files[pattern].format(parent=path.parent.name), path.name)
            if str(target) in sizes:
                raise InputError(f"{archive}: two files would become {target}; use the original archive")
            (folder / target).parent.mkdir(parents=True, exist_ok=True)
            with naming(folder / target), member.open() or io.BytesIO() as source, (folder / target).open("xb") as file:
                shutil.copyfileobj(source, file)
                sizes[str(target)] = file.tell()
            missing.discard(pattern)
            progress.advance()
    except InputError:
        raise
    except DAMAGE as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{archive}: not a readable zip or tar archive ({reason}); get a good copy") from None
    if missing:
        raise InputError(f"{archive}: no file {' or '.join(sorted(missing))} inside; get the original archive")
    return sizes


def _members(archive: Path) -> Iterator[_Member]:
    """The members of an archive in their order."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as opened:
            for info in opened.infolist():
                kind = stat.S_IFMT(info.external_attr >> 16)  # 0 where the archive was made on another system
                plain = kind in (0, stat.S_IFREG, stat.S_IFDIR)
                yield _Member(
                    info.filename,
                    info.file_size,
                    plain and not info.is_dir(),
                    plain and info.is_dir(),
                    partial(opened.open, info),
                )
        return
    with archive.open("rb") as raw:
        compressed = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        bounded = _Bounded(gzip.GzipFile(fileobj=raw) if compressed else raw)
        with tarfile.open(fileobj=bounded, mode="r:") as tar:
            for entry in tar:
                yield _Member(
                    entry.name,
                    entry.size,
                    entry.isreg() and not entry.issparse(),
                    entry.isdir(),
                    partial(tar.extractfile, entry),
                )
                tar.members = []  # type: ignore[attr-defined]  # or all would stay in memory
            if bounded.last != bytes(tarfile.BLOCKSIZE):  # tarfile takes a cut between two members for the end
                raise tarfile.ReadError("it has no end")


class _Bounded(io.RawIOBase):
    """A file that is read in small parts only: tarfile reads a header as a whole, whatever length it claims."""

    def __init__(self, file: io.BufferedIOBase) -> None:
        self.file, self.last = file, b""

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= LONGEST_HEADER:
            raise tarfile.ReadError("a header of absurd length")
        self.last = self.file.read(size)
        return self.last

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self.file.seek(offset, whence)

    def tell(self) -> int:
        return self.file.tell()
