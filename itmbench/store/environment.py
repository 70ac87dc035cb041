"""Where a run took place: machine, devices, state of the checkout."""

import platform
import subprocess
from pathlib import Path
from typing import Any

import lightning as L
import torch

import itmbench
from itmbench.processors import processors


def hardware(trainer: L.Trainer) -> dict[str, Any]:
    """Machine, devices, precision, threads, and the instructions and libraries that numbers depend on."""
    device = trainer.strategy.root_device
    return {
        "platform": platform.platform(),
        "cpu": _cpu_name(),
        "cores": processors(),
        "threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "blas": _blas(),
        "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        "devices": trainer.world_size,
        "accelerator": type(trainer.accelerator).__name__,
        "precision": str(trainer.precision),
    }


def git_state() -> dict[str, Any] | None:
    """Commit of the checkout that itmbench runs from, and whether it differs from the commit.

    None unless the repository tracks the package's own files: an environment may lie inside another repository.
    """

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(Path(itmbench.__file__).parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", "--", "__init__.py")
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain", "--", "."))}
    except (OSError, subprocess.SubprocessError):
        return None


def _blas() -> str:
    """The library of torch's matrix products on the CPU, with its version where torch shows it."""
    lines = [line.strip(" -") for line in torch.__config__.show().splitlines()]
    return next((line.partition(" for ")[0] for line in lines if "Math Kernel Library" in line), "") or next(
        (part for part in " ".join(lines).replace(",", " ").split() if part.startswith("BLAS_INFO=")), "unknown"
    )


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
