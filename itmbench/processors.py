"""How many processors this process may use."""

import os
from pathlib import Path

QUOTA = Path("/sys/fs/cgroup/cpu.max")
"""Limit of a container: microseconds of processor time in a period, or "max"; and the period."""


def processors() -> int:
    """Processors that the scheduler's mask and a container's limit allow, at least 1; all, where neither is known."""
    mask = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        time, period = QUOTA.read_text().split()
    except (OSError, ValueError):
        return mask
    return mask if time == "max" else max(1, min(mask, int(time) // int(period)))


def loaders(processes: int = 1) -> int:
    """Loader processes by default: one for each processor but one, at most 8, where ``processes`` share them."""
    return max(0, min(8, processors() // processes - 1))
