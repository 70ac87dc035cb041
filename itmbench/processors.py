"""What this process may use: processors and memory."""

import contextlib
import ctypes
import os
import re
from pathlib import Path

QUOTA = Path("/sys/fs/cgroup/cpu.max")
"""Limit of a container: microseconds of processor time in a period, or "max"; and the period."""
CPUINFO = Path("/proc/cpuinfo")


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


def keep_memory() -> None:
    """Keep freed memory for the next tensors of this process, as torch does on a GPU.

    By default glibc returns large blocks to the system. Every training step on a CPU then waits for the system to
    clear them anew, a tenth to a third of its time.
    """
    with contextlib.suppress(AttributeError, OSError, TypeError):  # another C library
        libc = ctypes.CDLL(None)
        libc.mallopt(-3, 32 << 20)  # M_MMAP_THRESHOLD: blocks below 32 MiB, its limit, come from the heap
        libc.mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD: the heap does not shrink


def sort_without_avx512_on_zen_4() -> None:
    """Have NumPy sort with AVX2 on AMD's Zen 4, unless the user chose; call it before NumPy's first import.

    There the AVX-512 sort, which ranks galleries, takes four times as long: Zen 4 writes compressed vectors to memory
    in microcode (https://github.com/numpy/x86-simd-sort/issues/6).
    """
    with contextlib.suppress(OSError):
        described = CPUINFO.read_text().partition("\n\n")[0]
        # Family 25 is Zen 3, which has no AVX-512, and Zen 4.
        if (
            "AuthenticAMD" in described
            and re.search(r"^cpu family\s*: 25$", described, re.M)
            and "avx512f" in described
        ):
            # By its names in NumPy 2.4 and before; a name that NumPy does not know is ignored.
            os.environ.setdefault("NPY_DISABLE_CPU_FEATURES", "X86_V4 AVX512_SKX AVX512_ICL AVX512_SPR")
