"""Compute independent tiles on all CPU cores, one thread per core and whole tiles per thread.

Splitting every small operation over the cores would make them wait for each other after each one.
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


def tile_map(function: Callable[[Item], Result], items: Iterable[Item], device: torch.device) -> Iterator[Result]:
    """``map`` without gradients, in order: in one thread per core on a CPU, sequentially on other devices.

    The function must be safe to run for several items at once. ``device`` is that of the tensors.
    """
    threads = torch.get_num_threads()
    if device.type != "cpu" or threads == 1:
        with torch.no_grad():
            yield from map(function, items)
        return

    def run_in_thread(item: Item) -> Result:
        torch.set_num_threads(1)
        with torch.no_grad():  # a per-thread setting
            return function(item)

    try:
        with ThreadPoolExecutor(threads) as pool:
            yield from pool.map(run_in_thread, items)
    finally:
        torch.set_num_threads(threads)
