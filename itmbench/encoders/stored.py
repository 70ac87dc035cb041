"""The output of frozen encoders: computed once for every item, kept on disk (`entries`), shared by all runs."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from itmbench.data.corpus import Corpus, ImageFiles, Rows, Strings
from itmbench.encoders.base import Encoder, Inputs, Processor
from itmbench.encoders.embeddings import Embeddings
from itmbench.encoders.entries import entry_folder, extend_entry, item_names, read_entry
from itmbench.errors import InputError, is_full
from itmbench.files import locked


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
    folder = entry_folder(encoder, source)
    names = item_names(source, rows)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder):
            shards, found = read_entry(folder)
            missing = {name: row for name, row in zip(names, rows.tolist(), strict=True) if name not in found}
            if missing:
                extend_entry(encoder.to(device), source, missing, folder)
                shards, found = read_entry(folder)
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
