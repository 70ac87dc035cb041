"""What a run costs: time, throughput, memory, floating-point operations."""

import math
import time
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Timer
from lightning.pytorch.trainer.states import TrainerFn
from torch.utils.flop_counter import FlopCounterMode

from itmbench.encoders import Embeddings
from itmbench.encoders.stored import StoredItems
from itmbench.methods.base import Matcher
from itmbench.methods.evaluated import EvaluationCallback
from itmbench.methods.trained import Trained

COUNTED = 8
"""Images and texts for which the floating-point operations of a pair are counted."""


class Meter(EvaluationCallback):
    """Counts and times training pairs, encoded images, encoded texts and scored pairs; probes are left out.

    Loading is included. Training is timed from validation to validation: to time each step, it would have to wait for
    the GPU. Items of a frozen encoder that are read from disk count with the time and operations that encoding them
    took. Counts from before an interruption are restored from the checkpoint.
    """

    def __init__(self) -> None:
        self.items = {"train": 0, "image": 0, "text": 0}
        self.seconds = {"train": 0.0, "image": 0.0, "text": 0.0}
        self.flops: dict[str, int] = {}
        self.pairs_per_second = 0.0
        self._mark = 0.0
        self._started = time.perf_counter()
        self._before = 0.0

    def state_dict(self) -> dict[str, Any]:
        return {"items": self.items, "seconds": self.seconds, "elapsed": self.elapsed()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if self.items["train"]:  # the test after this training loads the best checkpoint
            return
        self.items, self.seconds = dict(state_dict["items"]), dict(state_dict["seconds"])
        self._before = state_dict["elapsed"]

    def elapsed(self) -> float:
        """Seconds since construction, plus those up to the checkpoint that the run resumed from."""
        return self._before + time.perf_counter() - self._started

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._mark = time.perf_counter()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.items["train"] += len(batch["image_index"]) * trainer.world_size

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking:
            self._count("train", 0)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._count("train", 0)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._mark = time.perf_counter()  # validation within an epoch is not training time

    def on_test_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        modality = "image" if "image" in batch else "text"
        if modality not in self.flops:
            self.flops[modality] = _flops(pl_module, batch, modality) + round(_stored(trainer, dataloader_idx, "flops"))
            self._mark = time.perf_counter()  # leave out the start of the loader processes

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
            modality, items = "image" if "image" in batch else "text", len(batch["index"]) * trainer.world_size
            self._count(modality, items)
            self.seconds[modality] += items * _stored(trainer, dataloader_idx, "seconds")

    def on_encoded(self, model: Trained, stage: str, images: Embeddings, texts: Embeddings) -> None:
        """Time the scores of some pairs before all of them are evaluated."""
        if stage != "test":
            return
        most = (128, 256) if model.device.type == "cpu" else (1024, 4096)
        image, text = (_spread(items, count) for items, count in zip((images, texts), most, strict=True))
        some = slice(0, COUNTED)
        with FlopCounterMode(display=False) as counter:
            counted = model.score(image[some], text[some]).numel()
        self.flops["pair"] = round(counter.get_total_flops() / counted)
        model.score(image, text)  # warm-up
        _wait()
        start = time.perf_counter()
        scored = model.score(image, text).numel()
        _wait()
        self.pairs_per_second = scored / (time.perf_counter() - start)

    def throughput(self) -> dict[str, float]:
        """Training pairs, images and texts per second over all devices, scored pairs per second on one; 0: none."""
        names = {"train": "train_pairs_per_second", "image": "images_per_second", "text": "texts_per_second"}
        rates = {key: self.items[key] / self.seconds[key] if self.seconds[key] else 0.0 for key in names}
        return {name: rates[key] for key, name in names.items()} | {"scored_pairs_per_second": self.pairs_per_second}

    def _count(self, what: str, items: int) -> None:
        _wait()
        now = time.perf_counter()
        self.items[what] += items
        self.seconds[what] += now - self._mark
        self._mark = now


def _wait() -> None:
    """Wait until the GPU, if there is one, is idle."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _stored(trainer: L.Trainer, loader: int, what: str) -> float:
    """Mean cost of encoding an item of a test loader if it is read from disk (`itmbench.encoders.stored`), else 0."""
    items = trainer.test_dataloaders[loader].collate_fn.source  # type: ignore[index]
    return items.cost[what] if isinstance(items, StoredItems) else 0.0


def _spread(items: Embeddings, most: int) -> Embeddings:
    """At most ``most`` items, evenly spaced."""
    return items[:: math.ceil(len(items) / most)].on_one_device()


def _flops(model: Any, batch: Any, modality: str) -> int:
    """Floating-point operations to encode the first item of a batch, padded as in the batch."""
    one = {key: value[:1] for key, value in batch[modality].items()}
    encode = model.encode_image if modality == "image" else model.encode_text
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    try:
        for weight in trained:  # the counter fails where a module is given a trained weight as input
            weight.requires_grad_(False)
        with torch.no_grad():
            encode(one)  # warm-up: one-time work, such as the neighbours within a bank, does not count
            with FlopCounterMode(display=False) as counter:
                encode(one)
    finally:
        for weight in trained:
            weight.requires_grad_(True)
    return int(counter.get_total_flops())


def reset_peak_memory() -> None:
    """Start a new measurement of peak memory."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    if Path("/proc/self/clear_refs").exists():
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory(device: torch.device) -> int:
    """Peak memory in bytes since the reset, of the GPU used or this process; 0 if the system does not report it."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    status = Path("/proc/self/status")
    if not status.exists():
        return 0
    lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
    return 1024 * int(lines["VmHWM"].split()[0])


def budget(trainer: L.Trainer, batch_size: int) -> dict[str, Any]:
    """What bounds a training: limits, pairs in an optimizer step over all devices, after how many validations without
    progress it stops early, and ``max_seconds``, if time ends it.
    """
    callbacks: list[L.Callback] = trainer.callbacks  # type: ignore[attr-defined]
    timers = [callback for callback in callbacks if isinstance(callback, Timer)]
    left = [(timer, timer.time_remaining()) for timer in timers]  # None: it only measures
    times = [round(timer.time_elapsed() + seconds) for timer, seconds in left if seconds is not None]
    patience = [callback.patience for callback in trainer.early_stopping_callbacks if callback is not None]
    return {
        "max_epochs": trainer.max_epochs,
        "max_steps": trainer.max_steps,
        "batch_size": batch_size * trainer.world_size * trainer.accumulate_grad_batches,
        "limit_train_batches": trainer.limit_train_batches,
        "patience": min(patience, default=None),
        **({"max_seconds": min(times)} if times else {}),
    }


def parameters(model: Matcher) -> dict[str, int]:
    """Number of weights: all, and trained ones."""
    sizes = [(p.numel(), p.requires_grad) for p in model.parameters()]
    return {"all": sum(n for n, _ in sizes), "trained": sum(n for n, trained in sizes if trained)}
