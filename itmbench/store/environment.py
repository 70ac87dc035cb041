"""Where a run happened and with what: machine, versions, state of the checkout."""

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import lightning as L
import torch

import itmbench

PACKAGES = (
    "jsonargparse",
    "lightning",
    "numpy",
    "pillow",
    "timm",
    "tokenizers",
    "torch",
    "torch-geometric",
    "torchmetrics",
    "torchvision",
    "transformers",
)
"""By the names that they are installed by."""


def package_versions() -> dict[str, str]:
    """The version of each that is installed."""
    return {package: version(package) for package in PACKAGES}


def hardware(trainer: L.Trainer) -> dict[str, Any]:
    """Where it ran: machine, processors, devices and precision."""
    device = trainer.strategy.root_device
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    return {
        "platform": platform.platform(),
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "gpu": gpu,
        "devices": trainer.world_size,
        "accelerator": type(trainer.accelerator).__name__,
        "precision": str(trainer.precision),
    }


def versions() -> dict[str, str]:
    """Versions of what can change a number."""
    return {
        "itmbench": itmbench.__version__,
        "python": platform.python_version(),
        **package_versions(),
    }


def git_state() -> dict[str, Any] | None:
    """Commit of the checkout that itmbench runs from, and whether it was changed; None outside a checkout."""
    folder = Path(itmbench.__file__).parent

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()

    try:
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain", "--", str(folder)))}
    except (OSError, subprocess.SubprocessError):
        return None


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def own_package(class_path: str) -> str | None:
    """The package or module of a class, as it is imported; None if it is one of these."""
    package = class_path.partition(".")[0]
    return None if package.replace("_", "-") in PACKAGES else package
