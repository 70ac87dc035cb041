"""Share the work of an evaluation among the ranks of a distributed run, so that N ranks take 1/N of it each.

Only whole tiles are shared out, and they are those of one process, so that all numbers are equal to the last digit.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed

from itmbench.errors import InputError

Result = TypeVar("Result")

_shared: ContextVar[bool] = ContextVar("shared", default=False)


@contextmanager
def shared_among_ranks(shared: bool = True) -> Iterator[None]:
    """Share evaluations in this block among all ranks, which must all run it, with the same items."""
    before = _shared.set(shared)
    try:
        yield
    finally:
        _shared.reset(before)


def by_rank(compute: Callable[[Sequence[int]], Result], tasks: int) -> list[Result]:
    """The result of each rank for its share of so many tasks, on every rank; one result if nothing is shared.

    ``compute`` takes the numbers of a share, ascending, possibly none; its result can be pickled and has no tensors on
    a GPU.

    Raises:
        InputError: of the first rank that raised one, on every rank.
    """
    if not _shared.get():
        return [compute(range(tasks))]
    ranks = distributed.get_world_size()
    result: Result | InputError
    try:
        result = compute(range(distributed.get_rank(), tasks, ranks))
    except InputError as error:
        result = error
    results: list[Any] = [None] * ranks
    distributed.all_gather_object(results, result)
    for other in results:
        if isinstance(other, InputError):
            raise other
    return results


def summed(of_ranks: list[list[Tensor]]) -> list[Tensor]:
    """The sums over the ranks of tensors that each of them gives."""
    return [torch.stack(tensors).sum(0) if len(tensors) > 1 else tensors[0] for tensors in zip(*of_ranks, strict=True)]
