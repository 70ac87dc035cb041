"""Independent tiles on all cores: a thread a core, each with whole tiles.

Splitting every small operation over the cores makes them wait for each other after each one; whole tiles do not.
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


def tile_map(function: Callable[[Item], Result], items: Iterable[Item], device: torch.device) -> Iterator[Result]:
    """``map`` without gradients: on a CPU a thread a core, elsewhere one after another.

    Args:
        function: may run for several items at once; changes nothing that they share.
        items: tiles, or whatever names them.
        device: where the tensors are.

    Returns:
        The results, in the order of the items.
    """
    threads = torch.get_num_threads()
    if device.type != "cpu" or threads == 1:
        with torch.no_grad():
            yield from map(function, items)
        return

    def alone(item: Item) -> Result:
        torch.set_num_threads(1)
        with torch.no_grad():  # a setting of each thread
            return function(item)

    try:
        with ThreadPoolExecutor(threads) as pool:
            yield from pool.map(alone, items)
    finally:
        torch.set_num_threads(threads)
