"""What the speed benchmarks share."""

import resource
import time
from collections.abc import Callable

import torch


def clock() -> float:
    """Seconds: of the processor with one thread, which other work slows little, and on the wall with several."""
    return time.process_time() if torch.get_num_threads() == 1 else time.perf_counter()


def best_of(repeats: int, *calls: Callable[[], object]) -> list[float]:
    """The shortest time of each call in seconds; calls take turns, so that a busy minute hits all of them."""
    best = [float("inf")] * len(calls)
    for _ in range(repeats):
        for at, call in enumerate(calls):
            start = clock()
            call()
            best[at] = min(best[at], clock() - start)
    return best


def peak() -> float:
    """The most memory that this process has held so far, in MiB (Linux counts it in KiB)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
