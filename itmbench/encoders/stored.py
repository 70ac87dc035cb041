"""The output of frozen encoders: computed once for every item, kept on disk, shared by all runs.

A cache entry belongs to an encoder (its weights and everything else that decides its output) and a folder of images, or
to an encoder and all texts. It is a list of shards, each written atomically, that later calls extend: other splits,
noisy pairs and other seeds reuse what is there, and an interrupted call resumes after the last shard.
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
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode

from itmbench.data.batches import ItemCollate, loader_workers
from itmbench.data.cache import cache_folder
from itmbench.data.corpus import Corpus, ImageFiles, Rows, Strings
from itmbench.encoders.base import Encoder, Inputs, Processor
from itmbench.encoders.embeddings import Embeddings
from itmbench.errors import InputError, is_full
from itmbench.files import digest, locked
from itmbench.logs import Progress
from itmbench.processors import loaders

logger = logging.getLogger(__name__)

VERSION = 2
"""Part of every entry's name; raise it when the format on disk changes."""
BATCH = 64
"""Items encoded at once."""
SHARD = 1 << 28
"""Bytes of tokens in a shard."""
REPORT_EVERY = 30.0
"""Seconds between two progress messages."""


class Stored(NamedTuple):
    """An item on disk: its pooled vector `[D]` and its real tokens `[N, D]`, half precision, and their words `[N]`."""

    pooled: NDArray[np.float16]
    tokens: NDArray[np.float16]
    words: NDArray[np.int32] | None


class StoredItems:
    """Encoded items of one modality by corpus row, memory-mapped; rows that were not requested are absent.

    Args:
        shards: folders of an entry.
        shard: index of the shard that holds each row `[N]`; -1 if none does.
        place: position in that shard `[N]`.
    """

    def __init__(self, shards: Sequence[Path], shard: Rows, place: Rows) -> None:
        self.shards, self.shard, self.place = list(shards), shard, place

    def __len__(self) -> int:
        return len(self.shard)

    def select(self, rows: Rows) -> list[Stored]:
        """The items of some rows; an IndexError if one of them was not encoded."""
        if (missing := rows[self.shard[rows] < 0]).size:
            raise IndexError(f"row {missing[0]} was not encoded")
        places = zip(self.shard[rows].tolist(), self.place[rows].tolist(), strict=True)
        found = []
        for shard, at in places:
            pooled, tokens, words, starts = self._maps[shard]
            span = slice(starts[at], starts[at + 1])
            found.append(Stored(pooled[at], tokens[span], None if words is None else words[span]))
        return found

    def means(self, rows: Rows) -> tuple[Tensor, Tensor]:
        """Mean pooled vector `[D]` and mean token `[D]`, float32, of some rows."""
        items = self.select(rows)
        pooled = np.mean([item.pooled for item in items], axis=0, dtype=np.float64)
        tokens = sum(item.tokens.sum(0, dtype=np.float64) for item in items)
        count = sum(len(item.tokens) for item in items)
        return torch.from_numpy(pooled).float(), torch.from_numpy(np.asarray(tokens) / max(1, count)).float()

    def __getstate__(self) -> dict[str, Any]:
        """Everything but the memory maps, which another process opens itself."""
        return {key: value for key, value in self.__dict__.items() if key != "_maps"}

    @cached_property
    def _maps(self) -> list[tuple[NDArray[Any], NDArray[Any], NDArray[Any] | None, list[int]]]:
        """Pooled vectors, tokens, their words, and where the tokens of each item start, of every shard."""

        def mapped(path: Path) -> NDArray[Any]:
            return np.asarray(np.load(path, mmap_mode="r"))  # slicing a plain array is several times faster

        return [
            (
                mapped(each / "pooled.npy"),
                mapped(each / "tokens.npy"),
                np.load(each / "words.npy") if (each / "words.npy").exists() else None,
                [0, *np.load(each / "ends.npy").tolist()],
            )
            for each in self.shards
        ]

    @cached_property
    def cost(self) -> dict[str, float]:
        """Mean cost of encoding an item: ``seconds`` and ``flops``."""
        costs = [json.loads((each / "cost.json").read_text()) for each in self.shards]
        items = max(1, sum(each["items"] for each in costs))
        return {
            "seconds": sum(each["seconds"] for each in costs) / items,
            "flops": sum(each["items"] * each["flops"] for each in costs) / items,
        }


@dataclass(frozen=True)
class StoredProcessor:
    """Items on disk -> ``{"pooled": [B, D], "tokens": [B, N, D], "mask": [B, N]}``, half precision, and ``words``."""

    tokens: bool = True  # read the tokens, which are most of the data; without them a batch holds ``pooled`` alone

    def __call__(self, items: Sequence[Stored], train: bool) -> Inputs:
        pooled = torch.from_numpy(np.stack([item.pooled for item in items]))
        if not self.tokens:
            return {"pooled": pooled}
        lengths = np.array([len(item.tokens) for item in items])
        mask = np.arange(lengths.max()) < lengths[:, None]
        tokens = np.zeros((*mask.shape, pooled.shape[1]), np.float16)
        for row, item in enumerate(items):
            tokens[row, : len(item.tokens)] = item.tokens
        batch = {"pooled": pooled, "tokens": torch.from_numpy(tokens), "mask": torch.from_numpy(mask)}
        if items[0].words is not None:
            words = np.full(mask.shape, -1)
            words[mask] = np.concatenate([item.words for item in items if item.words is not None])
            batch["words"] = torch.from_numpy(words)
        return batch


def encode_corpus(
    corpus: Corpus,
    encoders: tuple[Encoder, Encoder],
    rows: tuple[Rows, Rows],
    device: torch.device | str = "cpu",
) -> Corpus:
    """The corpus with features in place of what frozen pretrained encoders read; the rest stays as it is.

    Args:
        corpus: photographs or ready-made features, and texts.
        encoders: of images and of texts, fitted to the corpus.
        rows: of the images and of the texts to encode; the others cannot be loaded from the result.
        device: to encode on.

    Raises:
        InputError: as `encode_once`.
    """
    sources: list[Any] = [corpus.images, corpus.texts]
    for modality, (encoder, some) in enumerate(zip(encoders, rows, strict=True)):
        if is_encoded_once(encoder, sources[modality]):
            sources[modality] = encode_once(encoder, sources[modality], some, device)
    return replace(corpus, images=sources[0], texts=sources[1])


def centre(encoder: Encoder, items: Any, rows: Rows) -> None:
    """Give an encoder that is to be centred the means of its stored training items, which the rows name."""
    if encoder.centre and isinstance(items, StoredItems):
        for mean, value in zip((encoder.pooled_mean, encoder.token_mean), items.means(rows), strict=True):
            mean.copy_(value)


def is_encoded_once(encoder: Encoder, items: Any) -> bool:
    """Whether an encoder's output for these items never changes and is expensive enough to keep on disk."""
    return encoder.freeze and encoder.pretraining != "scratch" and isinstance(items, ImageFiles | Strings)


def as_stored(items: Embeddings) -> Inputs:
    """The output of a frozen encoder as a run reads it from disk: in half precision."""
    inputs = {"pooled": items.pooled.half()}
    if items.tokens is not None and items.mask is not None:
        inputs |= {"tokens": (items.tokens * items.mask.unsqueeze(2)).half(), "mask": items.mask}
    return inputs if items.words is None else inputs | {"words": items.words}


def processor_of(encoder: Encoder, items: Any, tokens: bool = True) -> Processor:
    """The processor that makes batches of items for an encoder: that of stored items, or else the encoder's own."""
    return StoredProcessor(tokens) if isinstance(items, StoredItems) else encoder.processor()


def encode_once(
    encoder: Encoder, source: ImageFiles | Strings, rows: Rows, device: torch.device | str = "cpu"
) -> StoredItems:
    """The output of a frozen encoder for some rows, from disk; what is not there yet is encoded first.

    Items are identified by the name and size of their file, or by their words, not by their rows. If several processes
    ask for the same items, one encodes and the others wait. Encoding runs in float32 without random crops.

    Args:
        encoder: moved to ``device`` if anything has to be encoded.
        source: images or texts of a corpus.
        rows: the rows that will be loaded.
        device: to encode on.

    Raises:
        InputError: the cache cannot be written, or a number does not fit half precision.
        OSError: the disk is full, or has too little room for what is to be encoded.
    """
    folder = _entry(encoder, source)
    names = _names(source, rows)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder):
            shards, found = _index(folder)
            missing = {name: row for name, row in zip(names, rows.tolist(), strict=True) if name not in found}
            if missing:
                _encode(encoder.to(device), source, missing, folder)
                shards, found = _index(folder)
    except OSError as error:
        if is_full(error):
            raise
        raise InputError(
            f"{folder}: cannot be written ({error}); set ITMBENCH_CACHE to a folder that can be"
        ) from error
    shard, place = np.full(len(source), -1), np.full(len(source), -1)
    for name, row in zip(names, rows.tolist(), strict=True):
        shard[row], place[row] = found[name]
    return StoredItems(shards, shard, place)


def _entry(encoder: Encoder, source: ImageFiles | Strings) -> Path:
    """The cache folder of an encoder: one for each folder of images, one for the texts of all datasets."""
    kind, origin = ("images", source.root.resolve()) if isinstance(source, ImageFiles) else ("texts", "")
    identity = digest(str(VERSION), encoder.recipe(), str(origin), encoder.weights_digest())
    return cache_folder("frozen") / f"{kind}-{identity}"


def _names(source: ImageFiles | Strings, rows: Rows) -> list[bytes]:
    """16 bytes that identify each item by its file's name and size, or by its words."""

    def name(row: int) -> bytes:
        content = source.key(row) if isinstance(source, ImageFiles) else source[row]
        return bytes.fromhex(digest(content, size=16))

    return [name(row) for row in rows.tolist()]


def _index(folder: Path) -> tuple[list[Path], dict[bytes, tuple[int, int]]]:
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


def _encode(encoder: Encoder, source: ImageFiles | Strings, missing: dict[bytes, int], folder: Path) -> None:
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
