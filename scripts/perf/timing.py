"""What the speed benchmarks share."""

import resource
import time
from collections.abc import Callable


def best_of(repeats: int, *calls: Callable[[], object]) -> list[float]:
    """The shortest time of each call in seconds; calls take turns, so that a busy minute hits all of them."""
    best = [float("inf")] * len(calls)
    for _ in range(repeats):
        for at, call in enumerate(calls):
            start = time.perf_counter()
            call()
            best[at] = min(best[at], time.perf_counter() - start)
    return best


def peak() -> float:
    """The most memory that this process has held so far, in MiB (Linux counts it in KiB)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
