"""Archives -> a dataset on disk: find or download each, unpack it, move its files into place; skip what is done."""

import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from itmbench.data.download import download
from itmbench.data.sources import Archive, Source
from itmbench.data.unpack import unpack
from itmbench.errors import InputError, InputErrors
from itmbench.files import write_atomically

log = logging.getLogger(__name__)

WORK = ".itmbench"
"""Folder below a dataset's root: downloads, unfinished files, and a list of the files of each archive."""


def prepare(
    name: str,
    source: Source,
    root: Path,
    given: Path | None,
    is_complete: Callable[[], bool],
) -> None:
    """Bring a dataset into the layout that its reader takes.

    Args:
        name: the dataset, for messages.
        source: its archives.
        root: its folder, created if missing.
        given: a folder with archives that the user already has; ``root`` is looked through, too.
        is_complete: says whether the dataset can be read with its images.

    Raises:
        InputErrors: archives are missing or bad; one line of each. The others are unpacked.
        InputError: ``given`` is not a folder, or another process prepares the same folder.
        OSError: a file cannot be written.
    """
    if given is not None and not given.is_dir():
        raise InputError(f"--from {given}: no such folder; name the one that holds the archives")
    if root.is_dir() and not os.access(root, os.W_OK) and is_complete():
        return
    places = [place for place in (given, root) if place is not None]
    problems = []
    with _lock(root / WORK):
        for archive in source.archives:
            if is_complete():
                break
            if not _is_done(archive, root):
                try:
                    _bring(archive, root, places)
                except InputError as error:
                    problems.append(f"{name}: {error}")
    if problems:
        raise InputErrors(problems)
    shutil.rmtree(root / WORK / "downloads", ignore_errors=True)


def _bring(archive: Archive, root: Path, places: Sequence[Path]) -> None:
    """Unpack an archive of the user's, or a downloaded one."""
    given = next((place / name for name in archive.names for place in places if (place / name).is_file()), None)
    path = given or root / WORK / "downloads" / archive.names[0]
    if given is None and not path.is_file():
        reason = "it may not be passed on"
        try:
            if archive.urls:
                log.info(f"{path.name}: downloading into {root}")
                download(archive.urls, path, archive.size, archive.checksum)
        except InputError as error:
            reason = str(error)
        if not path.is_file():
            advice = f"{archive.request}; then " if archive.request else ""
            names = " or ".join(archive.names)
            raise InputError(
                f"{archive.names[0]} is missing ({reason}); {advice}put {names} into {root} or a folder that you name "
                "with --from, and run the same command again"
            )
    log.info(f"{path.name}: unpacking")
    unpacked = root / WORK / "unpacked"
    shutil.rmtree(unpacked, ignore_errors=True)
    unpacked.mkdir(parents=True)
    try:
        sizes = unpack(path, archive.files, unpacked, archive.limit)
        write_atomically(_record(archive, root), json.dumps(sizes))  # before the first move: see _is_done
        for file in sizes:
            (root / file).parent.mkdir(parents=True, exist_ok=True)
            (unpacked / file).replace(root / file)
    except InputError as error:
        if given is not None:
            raise
        path.unlink()  # or the next call would take it for good
        raise InputError(f"{error}; the download is removed, run the same command again") from None
    finally:
        shutil.rmtree(unpacked, ignore_errors=True)
    if given is None:
        path.unlink()


def _is_done(archive: Archive, root: Path) -> bool:
    """Whether every file that was unpacked is in place; without a record, whether the user has unpacked some."""
    try:
        sizes = json.loads(_record(archive, root).read_bytes())
    except FileNotFoundError:
        places = [Path(folder.format(parent="*"), Path(pattern).name) for pattern, folder in archive.files.items()]
        return all(any(root.glob(f"{place}*")) for place in places)  # *: Karpathy's JSON may be compressed
    except ValueError:
        return False
    return all((root / file).is_file() and (root / file).stat().st_size == size for file, size in sizes.items())


def _record(archive: Archive, root: Path) -> Path:
    """The file that lists what an archive was unpacked to."""
    return root / WORK / f"{archive.names[0]}.json"


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """Let one process at a time work in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as file:
        try:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except ImportError:
            pass
        except BlockingIOError:
            raise InputError(f"{folder.parent}: another `itmbench data prepare` works here; wait for it") from None
        yield
