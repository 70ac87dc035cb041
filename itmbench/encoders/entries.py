"""The cache entries of frozen encoders: what is in their folders, and how they grow.

An entry belongs to an encoder (its weights and everything else that decides its output) and a folder of images, or to
an encoder and all texts. It is a list of shards, each written atomically, that later calls extend: other splits, noisy
pairs and other seeds reuse what is there, and an interrupted call resumes after the last shard.
"""

import errno
import json
import logging
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode

from itmbench.data.batches import ItemCollate, loader_workers
from itmbench.data.cache import cache_folder
from itmbench.data.corpus import ImageFiles, Rows, Strings
from itmbench.encoders.base import Encoder
from itmbench.encoders.embeddings import Embeddings
from itmbench.errors import InputError
from itmbench.files import digest, real_path
from itmbench.logs import Progress
from itmbench.processors import loaders

logger = logging.getLogger(__name__)

VERSION = 3
"""Part of every entry's name; raise it when the format on disk changes."""
BATCH = 64
"""Items encoded at once."""
SHARD = 1 << 28
"""Bytes of tokens in a shard."""
REPORT_EVERY = 30.0
"""Seconds between two progress messages."""


def entry_folder(encoder: Encoder, source: ImageFiles | Strings) -> Path:
    """The cache folder of an encoder: one for each folder of images, one for the texts of all datasets."""
    kind, origin = ("images", real_path(source.root)) if isinstance(source, ImageFiles) else ("texts", "")
    identity = digest(str(VERSION), encoder.recipe(), str(origin), encoder.weights_digest())
    return cache_folder("frozen") / f"{kind}-{identity}"


def item_names(source: ImageFiles | Strings, rows: Rows) -> list[bytes]:
    """16 bytes that identify each item by its file's name and size, or by its words."""

    def name(row: int) -> bytes:
        content = source.key(row) if isinstance(source, ImageFiles) else source[row]
        return bytes.fromhex(digest(content, size=16))

    return [name(row) for row in rows.tolist()]


def read_entry(folder: Path) -> tuple[list[Path], dict[bytes, tuple[int, int]]]:
    """All shards, and the shard and the position there of every stored item, by name."""
    shards = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    for shard in [shard for shard in shards if not _is_whole(shard)]:
        logger.warning("%s: damaged; its items are encoded again", shard)
        shutil.rmtree(shard)
        shards.remove(shard)
    names = ((at, np.load(shard / "names.npy")) for at, shard in enumerate(shards))
    return shards, {name.tobytes(): (at, place) for at, some in names for place, name in enumerate(some)}


def _is_whole(shard: Path) -> bool:
    """Whether the files of a shard fit each other; this reads little more than their headers."""
    try:
        names, pooled, tokens, ends = (
            np.load(shard / f"{name}.npy", mmap_mode="r") for name in ("names", "pooled", "tokens", "ends")
        )
        words = np.load(shard / "words.npy", mmap_mode="r") if (shard / "words.npy").exists() else tokens
        json.loads((shard / "cost.json").read_text(encoding="utf-8"))["flops"]
        lengths = np.diff(ends, prepend=0)
        return bool(
            names.shape == (len(ends), 16)
            and names.dtype == np.uint8
            and len(pooled) == len(ends)
            and pooled.dtype == tokens.dtype == np.float16
            and pooled.shape[1:] == tokens.shape[1:]
            and (lengths > 0).all()
            and len(tokens) == len(words) == (ends[-1] if len(ends) else 0)
        )
    except (OSError, ValueError, TypeError, KeyError, IndexError, EOFError):
        return False


def extend_entry(encoder: Encoder, source: ImageFiles | Strings, missing: dict[bytes, int], folder: Path) -> None:
    """Encode items (name -> a row that holds it) and add them to the entry shard by shard."""
    what = "images" if isinstance(source, ImageFiles) else "texts"
    if isinstance(source, Strings):  # texts of similar length together, which keeps padding small
        missing = dict(sorted(missing.items(), key=lambda item: (len(source[item[1]]), item[1])))
    names, rows = list(missing), np.fromiter(missing.values(), np.int64)
    device = next(encoder.parameters()).device
    loader: DataLoader[Any] = DataLoader(
        rows,  # type: ignore[arg-type]
        batch_size=BATCH,
        collate_fn=ItemCollate(what, source, encoder.processor()),
        num_workers=loader_workers(loaders()),
    )
    message = "    encoding %d %s once with the frozen %s, into %s"
    logger.info(message, len(rows), what, type(encoder).__name__, folder)
    shard_began, progress = time.perf_counter(), Progress(logger, f"    {what}", len(rows), every=REPORT_EVERY)
    done = written = flops = 0
    parts: list[dict[str, Tensor]] = []
    for batch in loader:
        inputs = {key: value.to(device) for key, value in batch[what].items()}
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            if not flops:
                with FlopCounterMode(display=False) as counter:
                    encoder.embed({key: value[:1] for key, value in inputs.items()})
                flops = counter.get_total_flops()
            parts.append(_arrays(encoder.embed(inputs)))
        size = sum(part["tokens"].nbytes for part in parts)
        if not done:
            _check_room(folder, size * len(rows) // len(batch["index"]), what)
        done += len(batch["index"])
        if size >= SHARD or done == len(rows):
            cost = {"items": done - written, "seconds": time.perf_counter() - shard_began, "flops": int(flops)}
            _write_shard(folder, names[written:done], parts, cost)
            parts, written, shard_began = [], done, time.perf_counter()
        progress.advance(len(batch["index"]))


def _check_room(folder: Path, needed: int, what: str) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        reason = f"the encoded {what} need {needed / 1e9:.1f} GB and {free / 1e9:.1f} GB are free"
        raise OSError(errno.ENOSPC, f"{reason}; set ITMBENCH_CACHE to a folder with more room", str(folder))


def _arrays(items: Embeddings) -> dict[str, Tensor]:
    """By name: pooled vectors `[B, D]`, all real tokens `[n, D]`, their words `[n]`, how many an item has `[B]`.

    Raises:
        InputError: a value does not fit half precision or is not finite.
    """
    assert items.tokens is not None and items.mask is not None
    pooled, tokens = items.pooled.half().cpu(), items.tokens[items.mask].half().cpu()
    if not bool(pooled.isfinite().all() and tokens.isfinite().all()):
        raise InputError("a frozen encoder outputs values that are infinite or above 65,504; do not freeze it")
    words = {} if items.words is None else {"words": items.words[items.mask].int().cpu()}
    return {"pooled": pooled, "tokens": tokens, "lengths": items.mask.sum(1).cpu()} | words


def _write_shard(
    folder: Path, names: Sequence[bytes], parts: Sequence[dict[str, Tensor]], cost: dict[str, float]
) -> None:
    """Write a shard atomically."""
    arrays = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    arrays["ends"] = arrays.pop("lengths").cumsum(0)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".writing-") as temporary:
        whole = Path(temporary, "shard")
        whole.mkdir()
        np.save(whole / "names.npy", np.frombuffer(b"".join(names), np.uint8).reshape(-1, 16))
        for name, array in arrays.items():
            np.save(whole / f"{name}.npy", array.numpy())
        (whole / "cost.json").write_text(json.dumps(cost))
        os.rename(whole, folder / uuid.uuid4().hex)
