"""Parsed corpora on disk, valid as long as the files that they were read from do not change."""

import contextlib
import json
import os
import stat
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from itmbench.data.corpus import Corpus, Count, Features, ImageFiles, NpyRows, Stage, Strings
from itmbench.data.reading import listing
from itmbench.errors import InputError
from itmbench.files import digest, file_digest, write_atomically

VERSION = 8
"""Part of every entry's name. Raise it when a dataset's ``read`` or the stored form changes."""
SETTLED_NS = 2_000_000_000
"""A file modified this recently may change again without a new modification time, so its hash is not reused."""
SAMPLE = 500
"""How many files of a known folder are checked for their size."""


def cached(name: str, options: Mapping[str, Any], inputs: Sequence[Path], read: Callable[[], Corpus]) -> Corpus:
    """Return ``read()``, or the corpus that it returned before if its inputs have not changed since.

    An entry is valid for the contents of the input files and for the names and sizes of the files in the input folders,
    whatever their modification times. A file is hashed again when its size, its modification time or the time of any
    other change to it (of a copy that keeps the modification time) is new, as in git's index. A folder is listed again
    when a modification time in it or the size of one of some sampled files changes, so a few images among many that are
    overwritten in place may go unnoticed. Entries are replaced atomically, so processes can share the cache. A damaged
    entry is read anew.

    Args:
        name: the class that reads.
        options: its options.
        inputs: every file that ``read`` may parse and every folder whose listing it may use; missing ones count as
            such. The cache watches nothing else.
        read: parses the dataset; its exceptions pass through, and nothing is stored then.
    """
    identity = digest(json.dumps([VERSION, name, options], sort_keys=True, default=str), size=16)
    entry = cache_folder("corpora") / f"{name.rpartition('.')[2]}-{identity}"
    present = [path for path in inputs if path.exists()]
    if others := [path for path in present if not path.is_file() and not path.is_dir()]:  # reading may never end
        raise InputError(
            f"{others[0]}: is neither a file nor a folder; correct the path, or store its content in a file"
        )
    for watcher in _watchers:
        watcher += present
    digests = input_digests(present, entry.with_suffix(".json"))
    key = digest(identity, json.dumps(digests))
    corpus = _load(entry.with_suffix(".npz"), key)
    if corpus is None:
        corpus = read()
        _write(entry.with_suffix(".npz"), lambda file: _save(corpus, key, file))
    for items in (corpus.images, corpus.texts):
        if isinstance(items, Features) and isinstance(items.array, NpyRows):
            items.array.digests.update(digests)  # so that the fingerprint need not read them again
    return corpus


def cache_folder(kind: str) -> Path:
    """``$ITMBENCH_CACHE/<kind>``, by default ``~/.cache/itmbench/<kind>``.

    Raises:
        InputError: this user has no home, or others could have put numbers of their own into the folder.
    """
    try:
        folder = Path(os.environ.get("ITMBENCH_CACHE") or "~/.cache/itmbench").expanduser() / kind
    except RuntimeError:
        raise InputError("no home folder to keep the cache in; set ITMBENCH_CACHE to a folder") from None
    with contextlib.suppress(OSError, AttributeError):  # not there yet, or a system without owners
        found, user = folder.stat(), os.getuid()
        if found.st_mode & stat.S_IWOTH or (user != 0 and found.st_uid not in (0, user)):
            raise InputError(
                f"{folder}: belongs to another user, or anybody can write to it, so its numbers cannot be trusted; set "
                "ITMBENCH_CACHE to a folder of your own, or correct its permissions"
            )
    return folder


@contextlib.contextmanager
def inputs_read() -> Iterator[list[Path]]:
    """Collect the input files and folders of every corpus that ``cached`` returns in this context."""
    collected: list[Path] = []
    _watchers.append(collected)
    try:
        yield collected
    finally:
        _watchers.remove(collected)


_watchers: list[list[Path]] = []


def inputs_digest(paths: Sequence[Path], index_path: Path) -> str:
    """One hash over the result of `input_digests`."""
    return digest(json.dumps(input_digests(paths, index_path)))


def input_digests(paths: Sequence[Path], index_path: Path) -> dict[str, str]:
    """Hashes of the contents of files and of the listings of folders, by path; an OSError if one is missing.

    The index remembers the hashes, so that unchanged files are not read again.
    """
    known = _read_index(index_path)
    index, digests = {}, {}
    settled = time.time_ns() - SETTLED_NS
    for path in paths:
        stamp, modified = _stamp(path)
        entry: dict[str, Any] = known.get(str(path), {})
        if not _is_current(entry, path, stamp):
            entry = {"stamp": stamp, **_content(path)}
        if modified < settled:
            index[str(path)] = entry
        digests[str(path)] = entry["digest"]
    if index != known:
        _write(index_path, json.dumps(index))
    return digests


def _read_index(path: Path) -> dict[str, Any]:
    try:
        index = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return index if isinstance(index, dict) else {}


def _stamp(path: Path) -> tuple[Any, int]:
    """A stamp that changes with a file or folder, taken without reading it, and the time of the change in nanoseconds.

    For a file: size, modification time and change time. For a folder: its modification time and those of its direct
    subfolders, which change when files are added, removed or renamed.
    """
    stat = path.stat()
    if not path.is_dir():
        return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns], stat.st_mtime_ns
    with os.scandir(path) as entries:
        times = {entry.name: entry.stat().st_mtime_ns for entry in entries if entry.is_dir()}
    times[""] = stat.st_mtime_ns
    return times, max(times.values())


def _content(path: Path) -> dict[str, Any]:
    """Hash of a file's content, or of the names and sizes in a folder with the sizes of some of its files."""
    if not path.is_dir():
        return {"digest": file_digest(path), "sample": {}}
    sizes = sorted(listing(path).items())
    return {"digest": digest(json.dumps(sizes), size=16), "sample": dict(sizes[:: max(1, len(sizes) // SAMPLE)])}


def _is_current(entry: Any, path: Path, stamp: Any) -> bool:
    """Whether an index entry still holds. Images resized in place leave no trace on folders, hence the sample."""
    try:
        return (
            entry["stamp"] == stamp
            and isinstance(entry["digest"], str)
            and all(os.stat(path / name).st_size == size for name, size in entry["sample"].items())
        )
    except (OSError, KeyError, TypeError, AttributeError):
        return False


def _write(path: Path, content: str | Callable[[BinaryIO], object]) -> None:
    """Write a file atomically; warn if that fails, once a folder, because a run does not need its cache."""
    try:
        write_atomically(path, content)
    except OSError as error:
        warnings.warn(f"{path.parent}: cannot be written ({error}), so nothing is cached there", stacklevel=1)


STORED = {kind.__name__: kind for kind in (Corpus, Count, Features, ImageFiles, Stage, Strings)}


def _save(corpus: Corpus, key: str, file: BinaryIO) -> None:
    """Write one archive of arrays, with everything else as JSON."""
    arrays: dict[str, NDArray[Any]] = {}

    def encode(value: Any) -> dict[str, Any]:
        if isinstance(value, np.ndarray):
            name = f"array{len(arrays)}"
            arrays[name] = value
            return {"$array": name}
        if isinstance(value, NpyRows):
            return {"$npy": [str(path) for path in value.paths]}
        if isinstance(value, Path):
            return {"$path": str(value)}
        content = {field.name: getattr(value, field.name) for field in fields(value)}
        if content.get("true_images") is not None:  # thousands of short arrays
            rows = content["true_images"]
            content["true_images"] = {"$split": [np.concatenate(rows), np.cumsum([len(images) for images in rows])]}
        return {"$class": type(value).__name__, **content}

    content = json.dumps({"key": key, "corpus": corpus}, default=encode).encode()
    np.savez(file, allow_pickle=False, content=np.frombuffer(content, np.uint8), **arrays)


def _load(path: Path, key: str) -> Corpus | None:
    """Return the stored corpus, or None if there is no intact entry of this key."""

    def decode(value: dict[str, Any]) -> Any:
        match value:
            case {"$array": name}:
                return stored[name]
            case {"$npy": paths}:
                return NpyRows([Path(path) for path in paths])
            case {"$path": name}:
                return Path(name)
            case {"$split": [rows, ends]}:
                return np.split(rows, ends[:-1])
            case {"$class": name, **content}:
                return STORED[name](**content)
        return value

    try:
        with np.load(path, allow_pickle=False) as stored:
            content = json.loads(stored["content"].tobytes(), object_hook=decode)
        return content["corpus"] if content["key"] == key else None
    except Exception:  # whatever is wrong with an entry, the dataset is read again
        return None
