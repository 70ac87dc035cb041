"""What a run costs: time, throughput, memory, size; and where it ran."""

import os
import platform
import subprocess
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch.utils.flop_counter import FlopCounterMode

import itmbench
from itmbench.methods.base import Matcher


class Meter(L.Callback):
    """Counts and times training pairs, encoded images and encoded texts, loading included; probes do not count.

    What was counted before a run was interrupted is in its checkpoint.
    """

    def __init__(self) -> None:
        self.items = {"train": 0, "image": 0, "text": 0}
        self.seconds = {"train": 0.0, "image": 0.0, "text": 0.0}
        self.flops: dict[str, int] = {}
        self._mark = 0.0
        self._started = time.perf_counter()
        self._before = 0.0

    def state_dict(self) -> dict[str, Any]:
        return {"items": self.items, "seconds": self.seconds, "elapsed": self.elapsed()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if self.items["train"]:  # the test after this training reads the best checkpoint
            return
        self.items, self.seconds = dict(state_dict["items"]), dict(state_dict["seconds"])
        self._before = state_dict["elapsed"]

    def elapsed(self) -> float:
        """Seconds since this was made, and before the interruption up to the checkpoint that the run goes on from."""
        return self._before + time.perf_counter() - self._started

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._mark = time.perf_counter()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._count("train", len(batch["image_index"]) * trainer.world_size)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._mark = time.perf_counter()  # validation inside a training epoch is not training

    def on_test_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        modality = "image" if "image" in batch else "text"
        if modality not in self.flops:
            self.flops[modality] = _flops(pl_module, batch, modality)
            self._mark = time.perf_counter()  # the first batch of a loader waits for its processes to start

    def on_test_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if "probe" not in batch:
            self._count("image" if "image" in batch else "text", len(batch["index"]) * trainer.world_size)

    def throughput(self) -> dict[str, float]:
        """Training pairs, images and texts a second, over all devices; 0 for what did not run."""
        names = {"train": "train_pairs_per_second", "image": "images_per_second", "text": "texts_per_second"}
        return {name: self.items[key] / self.seconds[key] if self.seconds[key] else 0.0 for key, name in names.items()}

    def _count(self, what: str, items: int) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        now = time.perf_counter()
        self.items[what] += items
        self.seconds[what] += now - self._mark
        self._mark = now


def _flops(model: Any, batch: Any, modality: str) -> int:
    """Floating-point operations to encode the first item of a batch, as long as that item is in it."""
    one = {key: value[:1] for key, value in batch[modality].items()}
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        (model.encode_image if modality == "image" else model.encode_text)(one)
    return int(counter.get_total_flops())


def parameters(model: Matcher) -> dict[str, int]:
    """Numbers of weights: all, and those that are trained."""
    sizes = [(p.numel(), p.requires_grad) for p in model.parameters()]
    return {"all": sum(n for n, _ in sizes), "trained": sum(n for n, trained in sizes if trained)}


def reset_peak_memory() -> None:
    """Start a new measurement of peak memory; without a GPU or Linux the peak stays that of the whole process."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    elif Path("/proc/self/clear_refs").exists():
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory() -> int:
    """Bytes at the peak since the reset: of the GPU where there is one, else of this process."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    status = Path("/proc/self/status")
    if status.exists():
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return 1024 * int(lines["VmHWM"].split()[0])
    import resource

    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def hardware(trainer: L.Trainer) -> dict[str, Any]:
    """Where it ran: machine, processors, devices and precision."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
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
    names = [
        "torch",
        "lightning",
        "transformers",
        "tokenizers",
        "timm",
        "torchmetrics",
        "torch-geometric",
        "numpy",
        "pillow",
    ]
    return {
        "itmbench": itmbench.__version__,
        "python": platform.python_version(),
        **{name: version(name) for name in names},
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
