"""Batches: pairs to train on, items to evaluate, how they are collated, and in which order they come.

Randomness in training depends only on seed, epoch and item. It is therefore independent of the number of loader
processes, and the same after an interruption: no generator carries state from one batch or epoch to the next.
"""

import hashlib
import os
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, DistributedSampler

from itmbench.data.corpus import Rows
from itmbench.data.perturb import Probes

Processor = Callable[[Sequence[Any], bool], dict[str, Tensor]]
"""(raw items, training or not) -> a batch of tensors; an encoder's ``processor()``."""


def global_seed() -> int:
    """The seed that ``lightning.seed_everything`` set for this run; 0 if there is none."""
    return int(os.environ.get("PL_GLOBAL_SEED", 0))


def derived_seed(*numbers: int) -> int:
    """A 63-bit seed derived from whole numbers; other numbers, or another order, give an unrelated seed."""
    packed = struct.pack(f"<{len(numbers)}q", *numbers)
    return int.from_bytes(hashlib.blake2b(packed, digest_size=8).digest(), "little") >> 1


class EpochOrder(DistributedSampler[tuple[int, int]]):
    """Indices of a dataset in an order given by seed and epoch, each with the epoch: ``(epoch, index)``.

    Each of the ``devices`` takes every n-th index. As a ``DistributedSampler`` it is not wrapped by Lightning.
    """

    def __init__(self, dataset: Dataset[Any], devices: int = 1, rank: int = 0) -> None:
        super().__init__(dataset, num_replicas=devices, rank=rank, seed=global_seed())

    def __iter__(self) -> Iterator[tuple[int, int]]:
        generator = torch.Generator().manual_seed(derived_seed(self.seed, self.epoch))
        order = torch.randperm(len(self.dataset), generator=generator)  # type: ignore[arg-type]
        whole = order.repeat(2)[: self.total_size]  # a few indices occur twice, so that devices get equal shares
        return iter([(self.epoch, place) for place in whole[self.rank :: self.num_replicas].tolist()])


class Seeded(list[Any]):
    """Items of a training batch that, when iterated, seed torch's generator one by one for their own random crops."""

    def __init__(self, items: Sequence[Any], seeds: Sequence[int]) -> None:
        super().__init__(items)
        self.seeds = seeds

    def __iter__(self) -> Iterator[Any]:
        for seed, item in zip(self.seeds, super().__iter__(), strict=True):
            torch.default_generator.manual_seed(seed)
            yield item


def read(source: Any, rows: Rows, seeds: Iterable[int] | None = None) -> list[Any]:
    """The items of some rows: ``Seeded`` with a seed for each, if there are seeds.

    A source with ``select`` reads them at once. Its items are encoded already, so no processor draws for them.
    """
    if hasattr(source, "select"):
        return list(source.select(rows))
    items = [source[row] for row in rows.tolist()]
    return items if seeds is None else Seeded(items, list(seeds))


class Pairs(Dataset[Any]):
    """(epoch, text row) of every training pair, by epoch and index."""

    def __init__(self, rows: Rows) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key: tuple[int, int] | int) -> tuple[int, int]:
        epoch, at = key if isinstance(key, tuple) else (0, key)  # samplers other than ours give no epoch
        return epoch, int(self.rows[at])


@dataclass(frozen=True)
class PairCollate:
    """(epoch, text row) of training pairs -> a batch."""

    images: Any  # by row
    texts: Any  # by row
    image: Processor  # makes batches of images
    text: Processor  # makes batches of texts
    image_of: Rows  # row of the image that each text is trained with `[Nt]`
    labels: Any  # labels that each image is trained with `[Ni, C]`, or None
    seed: int  # the seed of the run

    def __call__(self, pairs: Sequence[tuple[int, int]]) -> dict[str, Any]:
        def seeds() -> Iterator[int]:
            return (derived_seed(self.seed, epoch, text) for epoch, text in pairs)

        texts = np.array([text for _, text in pairs])
        images = self.image_of[texts]
        with torch.random.fork_rng(devices=[]):  # without loader processes dropout uses the same generator
            torch.default_generator.manual_seed(next(seeds()))  # for processors that draw once per batch
            image = self.image(read(self.images, images, seeds()), True)
            text = self.text(read(self.texts, texts, (derived_seed(seed, 1) for seed in seeds())), True)
        batch = {
            "image": image,
            "text": text,
            "image_index": torch.from_numpy(images),
            "text_index": torch.from_numpy(texts),
        }
        if self.labels is not None:
            batch["labels"] = torch.from_numpy(self.labels[images])
        return batch


@dataclass(frozen=True)
class ItemCollate:
    """Rows of one modality -> a batch."""

    modality: str
    source: Any
    processor: Processor

    def __call__(self, rows: Sequence[int]) -> dict[str, Any]:
        index = np.array(rows)
        return {self.modality: self.processor(read(self.source, index), False), "index": torch.from_numpy(index)}


@dataclass(frozen=True)
class ProbeCollate:
    """Rows of perturbed captions -> a batch of texts, with the row of each true caption and the rule's number."""

    source: Any
    processor: Processor
    probes: Probes

    def __call__(self, rows: Sequence[int]) -> dict[str, Any]:
        index = np.array(rows)
        return {
            "text": self.processor(read(self.source, index), False),
            "index": torch.from_numpy(self.probes.texts[index]),
            "probe": torch.from_numpy(self.probes.rules[index]),
        }


def short_first(texts: Sequence[str]) -> Rows:
    """Positions of texts in order of length, which keeps padding small."""
    return np.argsort([len(text) for text in texts], kind="stable")


def loader_workers(wanted: int) -> int:
    """Loader processes that may be started here: none where several processes train on CPUs.

    Threads of gloo, their backend, briefly hold Python's lock after every exchange. A process forked at such a moment
    waits forever for a lock that nobody holds (seen with Python 3.11).
    """
    distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
    return 0 if distributed and "gloo" in torch.distributed.get_backend() else wanted
