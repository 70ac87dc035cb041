"""The user's photographs, encoded once by a trained method: an index on disk, to search by texts."""

import logging
import os
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image

from itmbench import __version__
from itmbench.data.cache import cache_folder
from itmbench.data.pictures import read_picture
from itmbench.encoders import Embeddings, FeatureEncoder
from itmbench.encoders.embeddings import ImageEmbeddings
from itmbench.errors import InputError, is_full
from itmbench.files import digest, file_digest, locked, real_path, write_atomically
from itmbench.logs import Progress
from itmbench.methods.base import Matcher
from itmbench.processors import processors
from itmbench.store.checkpoint import checkpoint_file, load

logger = logging.getLogger(__name__)

SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".heic", ".heif")
)
"""Endings of the files that count as photographs, in lower or upper case."""
VERSION = 2
"""Part of every index's name; raise it when the format on disk changes."""
BATCH = 16
"""Photographs decoded and encoded at once; those of a camera take 36 MB each."""
SAVE_EVERY = 20.0
"""Seconds between two writes: what an interruption may lose."""

Stamp = tuple[str, int, int, int]
"""What identifies a photograph without reading it: path below the folder, size, times of its modification and of any
change, also by a copy that keeps the former."""


@dataclass(frozen=True)
class Index:
    """Encoded photographs of a folder."""

    names: Sequence[str]  # path of each below the folder `[N]`, in alphabetical order
    images: ImageEmbeddings  # their embeddings, on the CPU
    broken: Mapping[str, str]  # why photographs that cannot be read are missing, by name


def load_with_index(model: str | Path, folder: str | Path) -> tuple[Matcher, Index]:
    """A trained method, and the photographs below a folder as it encodes them.

    What was encoded before is read from the cache; new and changed photographs are encoded, and an interrupted call
    resumes. The index belongs to the checkpoint (``model`` as for `itmbench.load`) and the folder. Subfolders are
    included; hidden files and links to folders are skipped.

    Raises:
        InputError: the checkpoint cannot be loaded or its method reads no photographs; the folder does not exist or
            holds no photograph that can be read; or the cache cannot be written.
    """
    folder = Path(folder)
    wanted = photographs(folder)
    if not wanted:
        raise InputError(f"{folder}: no photographs ({', '.join(sorted(SUFFIXES))}) here or below; name another folder")
    matcher = load(model)
    require_photographs(matcher)
    matcher.to("cuda" if torch.cuda.is_available() else "cpu")
    key = digest(str(VERSION), __version__, file_digest(checkpoint_file(model)), matcher.image.recipe())
    entry = cache_folder("search") / digest(key, os.fsencode(real_path(folder)), size=16)
    try:
        entry.mkdir(parents=True, exist_ok=True)
        with locked(entry):
            return matcher, _update(matcher, folder, wanted, entry)
    except OSError as error:
        if is_full(error):
            raise
        raise InputError(
            f"{entry}: cannot be written ({error.strerror or error}); set ITMBENCH_CACHE to a folder that can be"
        ) from error


def photographs(folder: Path) -> list[Stamp]:
    """All photographs below a folder in alphabetical order; an InputError if there is no such folder."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; name one with photographs")
    found = []
    for where, folders, files in os.walk(folder, onerror=_skip):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            path = Path(where, name)
            if path.suffix.lower() in SUFFIXES and not name.startswith(".") and path.is_file():
                stat = path.stat()
                found.append((str(path.relative_to(folder)), stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns))
    return sorted(found)


def _skip(error: OSError) -> None:
    logger.warning("%s: skipped, %s", os.fsencode(error.filename).decode(errors="replace"), error.strerror)


def require_photographs(model: Matcher) -> None:
    """Raise an InputError if a method reads ready-made features instead of photographs and words."""
    for encoder, what in ((model.image, "photographs"), (model.text, "words")):
        if isinstance(encoder, FeatureEncoder):
            raise InputError(
                f"{type(model).__name__}: this checkpoint reads ready-made features, not {what}; train a method with "
                "encoders of photographs and words (itmbench fit --help)"
            )


def _update(model: Matcher, folder: Path, wanted: Sequence[Stamp], entry: Path) -> Index:
    """Encode what is missing, drop what is no longer wanted, and keep the rest in one file."""
    files = sorted(entry.glob("*.pt"))
    parts = [part for file in files if (part := _read(file)) is not None]
    stamps = [stamp for some, _ in parts for stamp in some]
    missing = sorted(set(wanted) - set(stamps))
    broken: dict[str, str] = {}
    for some, images in _encode(model, folder, missing, broken):
        files.append(_write(entry, some, images))
        parts.append((some, images))
        stamps += some
    place = {stamp: row for row, stamp in enumerate(stamps)}
    kept = [stamp for stamp in wanted if stamp in place]
    if not kept:
        name, reason = next(iter(broken.items()))
        raise InputError(f"{folder}: none of the {len(wanted)} photographs can be read; the first is {name} ({reason})")
    table = Embeddings.cat([images for _, images in parts]) if len(parts) > 1 else parts[0][1]
    if kept != stamps or len(files) > 1:
        table = table[torch.tensor([place[stamp] for stamp in kept])]
        _write(entry, kept, table)
        for file in files:
            file.unlink(missing_ok=True)
    return Index([name for name, *_ in kept], ImageEmbeddings(**vars(table)), broken)


def _encode(
    model: Matcher, folder: Path, missing: Sequence[Stamp], broken: dict[str, str]
) -> Iterator[tuple[list[Stamp], Embeddings]]:
    """Encode photographs; gives what is done every ``SAVE_EVERY`` seconds, and adds those it cannot read to broken."""

    def read(stamp: Stamp) -> Image.Image | str:
        try:
            return read_picture(folder / stamp[0])
        except InputError as error:
            return str(error).removeprefix(f"{folder / stamp[0]}: ")

    progress = Progress(logger, "indexing photographs", len(missing))
    stamps: list[Stamp] = []
    parts: list[Embeddings] = []
    saved = time.monotonic()
    with ThreadPoolExecutor(processors()) as pool:
        for at in range(0, len(missing), BATCH):
            some = missing[at : at + BATCH]
            pictures = dict(zip(some, pool.map(read, some), strict=True))
            broken |= {stamp[0]: reason for stamp, reason in pictures.items() if isinstance(reason, str)}
            good = {stamp: picture for stamp, picture in pictures.items() if isinstance(picture, Image.Image)}
            if good:
                stamps += good
                parts.append(model.encode_images(list(good.values())))
            progress.advance(len(some))
            last = at + BATCH >= len(missing)
            if parts and (last or time.monotonic() > saved + SAVE_EVERY):
                yield stamps, Embeddings.cat(parts)
                stamps, parts, saved = [], [], time.monotonic()


def _write(entry: Path, stamps: Sequence[Stamp], images: Embeddings) -> Path:
    path = entry / f"{uuid.uuid4().hex}.pt"
    content = {"stamps": [list(stamp) for stamp in stamps], "images": vars(images)}
    write_atomically(path, lambda file: torch.save(content, file))
    return path


def _read(file: Path) -> tuple[list[Stamp], Embeddings] | None:
    """The content of a file, its tensors memory-mapped; None if it is damaged: its photographs are encoded again."""
    try:
        content = torch.load(file, weights_only=True, mmap=True)
        stamps, images = [tuple(stamp) for stamp in content["stamps"]], Embeddings(**content["images"])
        return (stamps, images) if len(stamps) == len(images) else None
    except Exception:  # torch and pickle each raise their own
        return None
