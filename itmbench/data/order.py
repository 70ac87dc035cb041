"""What is random in training follows from seed, epoch and item alone.

It is the same on any number of loader processes, and after an interruption: no generator is left running from one
batch or epoch to the next.
"""

import hashlib
import os
import struct
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import Dataset, DistributedSampler


def global_seed() -> int:
    """The seed of the run, as ``lightning.seed_everything`` leaves it for all its processes; 0 if there is none."""
    return int(os.environ.get("PL_GLOBAL_SEED", 0))


def derived_seed(*numbers: int) -> int:
    """A seed of 63 bits for some whole numbers: others, or another order, give an unrelated one."""
    packed = struct.pack(f"<{len(numbers)}q", *numbers)
    return int.from_bytes(hashlib.blake2b(packed, digest_size=8).digest(), "little") >> 1


class EpochOrder(DistributedSampler[tuple[int, int]]):
    """Places of a dataset in an order that seed and epoch decide, each with the epoch: ``(epoch, place)``.

    A device takes every n-th place. It is a ``DistributedSampler``, so that Lightning puts none of its own around it.

    Args:
        dataset: whose places they are.
        devices: how many share an epoch.
        rank: which one this is.
    """

    def __init__(self, dataset: Dataset[Any], devices: int = 1, rank: int = 0) -> None:
        super().__init__(dataset, num_replicas=devices, rank=rank, seed=global_seed())

    def __iter__(self) -> Iterator[tuple[int, int]]:
        generator = torch.Generator().manual_seed(derived_seed(self.seed, self.epoch))
        order = torch.randperm(len(self.dataset), generator=generator)  # type: ignore[arg-type]
        whole = order.repeat(2)[: self.total_size]  # devices take equally many: a few places come twice
        return iter([(self.epoch, place) for place in whole[self.rank :: self.num_replicas].tolist()])


class Seeded(list[Any]):
    """Items that set torch's generator, each to its own seed, as they are iterated: random crops are drawn from it.

    Args:
        items: of a training batch.
        seeds: one for each.
    """

    def __init__(self, items: Sequence[Any], seeds: Sequence[int]) -> None:
        super().__init__(items)
        self.seeds = seeds

    def __iter__(self) -> Iterator[Any]:
        for seed, item in zip(self.seeds, super().__iter__(), strict=True):
            torch.default_generator.manual_seed(seed)
            yield item
