"""Parsed corpora on disk, found again as long as nothing that they were read from has changed."""

import contextlib
import hashlib
import json
import os
import time
import uuid
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from itmbench.data.corpus import Corpus, Count, Features, ImageFiles, NpyRows, Stage, Strings, file_digest
from itmbench.data.reader import Reader
from itmbench.data.reading import listing

# Part of every key: raise it when a reader or the stored form changes, and old entries are no longer found.
VERSION = 1
# A file changed so recently may change again within the same tick of its clock: its hash is not remembered.
SETTLED_NS = 2_000_000_000
# What the index remembers of a file or folder.
INDEX_KEYS = {"stamp", "digest", "sample"}
# How many files of a remembered folder are looked at one by one.
SAMPLE = 500


def cached(reader: Reader[Any], root: Path | str, cache_dir: Path | str | None = None, **options: Any) -> Corpus:
    """The corpus that ``reader(root, **options)`` returns, from disk where it has been read before.

    An entry is valid for the contents of the reader's input files and the names and sizes in its input folders,
    whatever their dates. Contents are hashed once and remembered by size and date of the file, as git's index does;
    names and sizes in a folder are remembered by the dates of the folders and the sizes of some of the files, so that
    a few images among many, overwritten in place, may keep the sizes they had. Entries are replaced whole, so that
    processes may share a folder; a damaged or outdated one is read anew.

    Args:
        reader: one of the readers of `itmbench.data.datasets`, or your own.
        root: the dataset's folder.
        cache_dir: where entries are kept; `default_cache_dir` if not given.
        options: of the reader.

    Raises:
        InputError: whatever the reader raises; nothing is stored then.
    """
    root = Path(root).resolve()
    folder = Path(cache_dir) if cache_dir else default_cache_dir()
    asked = json.dumps([VERSION, reader.name, str(root), options], sort_keys=True, default=str)
    entry = folder / f"{reader.name.rpartition('.')[2]}-{_hash(asked.encode())}"
    inputs = reader.inputs(root, **options)
    for watcher in _watchers:
        watcher += inputs
    digests = input_digests(inputs, entry.with_suffix(".json"))
    key = _hash(asked.encode() + _joint(digests).encode())
    corpus = _load(entry.with_suffix(".npz"), key)
    if corpus is None:
        corpus = reader(root, **options)
        write_whole(entry.with_suffix(".npz"), lambda file: _save(corpus, key, file))
    for items in (corpus.images, corpus.texts):
        if isinstance(items, Features) and isinstance(items.array, NpyRows):
            items.array.know(digests)  # its fingerprint need not read them again
    return corpus


def default_cache_dir() -> Path:
    """``$ITMBENCH_CACHE/corpora``, or ``~/.cache/itmbench/corpora``."""
    return Path(os.environ.get("ITMBENCH_CACHE") or Path.home() / ".cache" / "itmbench") / "corpora"


def _hash(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()


@contextlib.contextmanager
def inputs_read() -> Iterator[list[Path]]:
    """The files and folders that every corpus which ``cached`` gives meanwhile depends on."""
    read: list[Path] = []
    _watchers.append(read)
    try:
        yield read
    finally:
        _watchers.remove(read)


_watchers: list[list[Path]] = []


def inputs_digest(paths: Sequence[Path], index_path: Path) -> str:
    """A hash of the contents of files and the listings of folders; as ``input_digests``."""
    return _joint(input_digests(paths, index_path))


def input_digests(paths: Sequence[Path], index_path: Path) -> dict[str, str]:
    """What contents of files and listings of folders hash to, by path; the index remembers it.

    Raises:
        OSError: one of them is gone.
    """
    known = _read_index(index_path)
    index: dict[str, Any] = {}
    digests = {}
    settled = time.time_ns() - SETTLED_NS
    for path in paths:
        stamp, changed = _folder_stamp(path) if path.is_dir() else _file_stamp(path)
        entry = known.get(str(path))
        if entry is None or entry["stamp"] != stamp or not _sample_holds(path, entry["sample"]):
            digest, sample = _listing_digest(path) if path.is_dir() else (file_digest(path), {})
            entry = {"stamp": stamp, "digest": digest, "sample": sample}
        if changed < settled:
            index[str(path)] = entry
        digests[str(path)] = entry["digest"]
    if index != known:
        write_whole(index_path, lambda file: file.write(json.dumps(index).encode()))
    return digests


def _joint(digests: dict[str, str]) -> str:
    return _hash(json.dumps(list(digests.items())).encode())


def _file_stamp(path: Path) -> tuple[Any, int]:
    """What changes with the content of a file, as far as its entry in the folder tells, and when it last did."""
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns], stat.st_mtime_ns


def _folder_stamp(folder: Path) -> tuple[Any, int]:
    """Dates of a folder and its direct subfolders, which files that come, go or change names change; the latest."""
    with os.scandir(folder) as entries:
        dates = {entry.name: entry.stat().st_mtime_ns for entry in entries if entry.is_dir()}
    dates[""] = folder.stat().st_mtime_ns
    return dates, max(dates.values())


def _listing_digest(folder: Path) -> tuple[str, dict[str, int]]:
    """A hash of the names and sizes of all files, and the sizes of some, evenly spread."""
    files = sorted(listing(folder).items())
    return _hash(json.dumps(files).encode()), dict(files[:: max(1, len(files) // SAMPLE)])


def _sample_holds(folder: Path, sample: dict[str, int]) -> bool:
    """Whether files still have the sizes they had: images that were all resized in place leave no date on folders."""
    try:
        return all(os.stat(folder / name).st_size == size for name, size in sample.items())
    except OSError:
        return False


def _read_index(path: Path) -> dict[str, Any]:
    """What files and folders hashed to; without the entries that are damaged or of another version."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    entries = content.items() if isinstance(content, dict) else ()
    return {key: each for key, each in entries if isinstance(each, dict) and each.keys() == INDEX_KEYS}


def write_whole(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Writes a file whole or not at all; a cache that cannot be written costs time, not the run."""
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("xb") as file:
            write(file)
        os.replace(temporary, path)
    except OSError as error:
        warnings.warn(f"{path.parent}: cannot be written ({error}); what it would save is done each time", stacklevel=3)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _save(corpus: Corpus, key: str, file: BinaryIO) -> None:
    """One archive: arrays, and everything else as JSON."""
    arrays: dict[str, NDArray[Any]] = {"text_to_image": corpus.text_to_image, "train": corpus.train}
    for name, stage in corpus.stages.items():
        arrays[f"stage/{name}/queries"], arrays[f"stage/{name}/gallery"] = stage.queries, stage.gallery
    for what, optional in (("labels", corpus.labels), ("hard_negatives", corpus.hard_negatives)):
        if optional is not None:
            arrays[what] = optional
    if corpus.true_images is not None:
        arrays["truth/images"] = np.concatenate([*corpus.true_images, np.empty(0, np.int64)])
        arrays["truth/lengths"] = np.array([len(rows) for rows in corpus.true_images], dtype=np.int64)
    content = {
        "key": key,
        "name": corpus.name,
        "image_ids": list(corpus.image_ids),
        "text_ids": list(corpus.text_ids),
        "label_names": list(corpus.label_names),
        "stages": list(corpus.stages),
        "counts": [[count.what, count.found, count.published] for count in corpus.counts],
        "images": _pack(corpus.images, "images", arrays),
        "texts": _pack(corpus.texts, "texts", arrays),
    }
    np.savez(file, allow_pickle=False, content=np.frombuffer(json.dumps(content).encode(), np.uint8), **arrays)


def _load(path: Path, key: str) -> Corpus | None:
    """The stored corpus, or None if there is none of this key in good order."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            content = json.loads(stored["content"].tobytes())
            if content["key"] != key:
                return None
            arrays = {name: stored[name] for name in stored.files if name != "content"}
        truth = None
        if "truth/lengths" in arrays:
            truth = np.split(arrays["truth/images"], np.cumsum(arrays["truth/lengths"])[:-1])
        return Corpus(
            name=content["name"],
            image_ids=content["image_ids"],
            images=_unpack(content["images"], "images", arrays),
            text_ids=content["text_ids"],
            texts=_unpack(content["texts"], "texts", arrays),
            text_to_image=arrays["text_to_image"],
            train=arrays["train"],
            stages={
                name: Stage(arrays[f"stage/{name}/queries"], arrays[f"stage/{name}/gallery"])
                for name in content["stages"]
            },
            labels=arrays.get("labels"),
            label_names=content["label_names"],
            true_images=truth,
            hard_negatives=arrays.get("hard_negatives"),
            counts=[Count(*count) for count in content["counts"]],
        )
    except Exception:  # whatever is wrong with an entry, the cure is to read the dataset again
        return None


def _pack(items: ImageFiles | Features | Strings | None, prefix: str, arrays: dict[str, NDArray[Any]]) -> Any:
    """The JSON part of images or texts; their numbers go into ``arrays``."""
    if items is None:
        return None
    if isinstance(items, Strings):
        return {"strings": list(items.strings)}
    if isinstance(items, ImageFiles):
        arrays[f"{prefix}/sizes"] = items.sizes
        return {"root": str(items.root), "names": list(items.names)}
    for part in ("mask", "rows"):
        if getattr(items, part) is not None:
            arrays[f"{prefix}/{part}"] = getattr(items, part)
    if isinstance(items.array, NpyRows):
        return {"npy": [str(path) for path in items.array.paths]}
    arrays[f"{prefix}/array"] = items.array
    return {}


def _unpack(content: Any, prefix: str, arrays: dict[str, NDArray[Any]]) -> Any:
    if content is None:
        return None
    if "strings" in content:
        return Strings(content["strings"])
    if "names" in content:
        return ImageFiles(Path(content["root"]), content["names"], arrays[f"{prefix}/sizes"])
    array = NpyRows([Path(path) for path in content["npy"]]) if "npy" in content else arrays[f"{prefix}/array"]
    return Features(array, arrays.get(f"{prefix}/mask"), arrays.get(f"{prefix}/rows"))
