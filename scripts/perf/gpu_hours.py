"""How long benchmarks/paper.yaml takes on a GPU: measured where there is one, else computed from counted operations.

    python scripts/perf/gpu_hours.py [--spec paper] [--steps 20] [--tflops 150]

Every method of the benchmark is built as its configs say, but with random weights, and trains on random photographs.
With a GPU, ``--steps`` steps at the batch size and precision of the benchmark are timed, loading included. Without
one, the floating-point operations of a step are counted at two small batches, which tell what grows with the pairs
and what with their square, with one layer an encoder and those of the others added; and divided by a rate that a GPU
keeps up in such training (``--tflops``; 150 is 15 % of an H100's peak in bf16). Evaluation counts as encoding: of all
images and texts of validation once an epoch, and of the test, and each time of the training pairs that a bank or votes
hold. Scoring is not counted.
"""

import argparse
import inspect
import os
import tempfile
import time
from dataclasses import dataclass
from functools import cache
from typing import Any

import lightning as L
import torch
from lightning.fabric.utilities import move_data_to_device
from random_photographs import RandomPhotographs
from torch.utils.flop_counter import FlopCounterMode

from itmbench.encoders import ScratchTextEncoder, TimmImageEncoder
from itmbench.methods.base import Matcher
from itmbench.methods.mcr_dgn import MCRDGN
from itmbench.runner.cell_cli import CellCLI
from itmbench.runner.spec import Cell, load_cells, merge

LAYERS = 12
BANK = inspect.signature(MCRDGN).parameters["bank_size"].default
BANKED = ("mcr_dgn", "mcr_dgn_votes")
"""Methods that hold a bank of training pairs."""
COUNTED = (2, 4)
"""Batches at which operations are counted."""


@dataclass(frozen=True)
class Size:
    """Published sizes of a dataset: training pairs, and images and texts that are encoded in validation and test."""

    pairs: int
    validation: tuple[int, int]
    test: tuple[int, int]
    labels: int = 0


SIZES = {
    "flickr30k": Size(145_000, (1_014, 5_070), (1_000, 5_000)),
    "mirflickr25k": Size(9_000, (10_000, 10_000), (20_015, 20_015), 24),
    "nuswide": Size(9_450, (10_500, 10_500), (195_834, 195_834), 21),
}


@dataclass(frozen=True)
class Cost:
    """Seconds of a training step, and of encoding an image and a text."""

    step: float
    image: float
    text: float


def main() -> None:
    options = parse()
    cells = [cell for cell in load_cells(options.spec) if cell.seed == 0]
    seeds = len({cell.seed for cell in load_cells(options.spec)})
    where = torch.cuda.get_device_name() if torch.cuda.is_available() else f"counted, at {options.tflops} TFLOP/s"
    print(f"{where}; hours of one seed")
    total = 0.0
    with tempfile.TemporaryDirectory() as folder:
        os.environ["ITMBENCH_CACHE"] = folder
        for cell in cells:
            hours = hours_of(cell, options, folder)
            total += hours
            print(f"{cell.dataset:<14} {cell.method:<14} {hours:6.2f}", flush=True)
    print(f"all {len(cells)} cells of a seed {total:.1f}, {seeds} seeds {seeds * total:.0f} GPU hours")


def hours_of(cell: Cell, options: argparse.Namespace, folder: str) -> float:
    """Hours of a cell."""
    size, init = SIZES[cell.dataset], cell.config["data"]["init_args"]
    epochs, batch_size = cell.config["trainer"]["max_epochs"], init["batch_size"]
    cost = measured(cell, options, folder) if torch.cuda.is_available() else counted(cell, options, folder)
    steps = epochs * (size.pairs // batch_size) if cost.step else 0
    given = cell.config["model"]["init_args"]
    bank = min(size.pairs, given.get("bank_size", BANK)) if cell.method in BANKED else 0
    if given.get("votes"):
        bank = size.pairs
    evaluated = [epochs * (v + bank) + t + bank for v, t in zip(size.validation, size.test, strict=True)]
    return (steps * cost.step + evaluated[0] * cost.image + evaluated[1] * cost.text) / 3600


def built(cell: Cell, folder: str, batch_size: int, images: int, depth: int) -> tuple[Matcher, RandomPhotographs]:
    """The method of a cell with random weights and so many layers an encoder, set up on random photographs."""
    base = {"width": 768, "depth": depth, "heads": 12, "vocab_size": 30_522, "max_length": 64}
    random: dict[str, Any] = {
        "image": {"init_args": {"pretrained": False, "model_args": {"depth": depth}}},
        "text": {"class_path": "ScratchTextEncoder", "init_args": base},
    }
    init_args = {"folder": folder, "images": images, "labels": SIZES[cell.dataset].labels, "batch_size": batch_size}
    data = {"class_path": "random_photographs.RandomPhotographs", "init_args": init_args}
    config = merge(cell.config, {"model": {"init_args": random}, "trainer": {"accelerator": "auto"}}) | {"data": data}
    cli = CellCLI(config)
    model, photographs = cli.make_model(), cli.data
    off = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    trainer = L.Trainer(max_epochs=1, devices=1, **off)  # type: ignore[arg-type]
    model.trainer, trainer.datamodule, photographs.trainer = trainer, photographs, trainer  # type: ignore[attr-defined]
    photographs.setup("fit")
    model.setup("fit")
    assert isinstance(photographs, RandomPhotographs)
    return model.train(), photographs


def counted(cell: Cell, options: argparse.Namespace, folder: str) -> Cost:
    """From operations: a step of B pairs takes a B + b B^2 of them, and three times as many with gradients."""
    flops = []
    for size in COUNTED:
        model, data = built(cell, folder, size, max(COUNTED), depth=1)
        batch = next(iter(data.train_dataloader()))
        with FlopCounterMode(display=False) as counter:
            if trains(model):
                model.training_loss(batch)
        flops.append(counter.get_total_flops())
    shallow, whole = encoding(1), encoding(LAYERS)
    one, two = COUNTED
    square = (flops[1] / two - flops[0] / one) / (two - one)
    pairs = cell.config["data"]["init_args"]["batch_size"]
    step = 3 * pairs * (flops[0] / one + square * (pairs - one) + sum(whole) - sum(shallow))
    rate = options.tflops * 1e12
    return Cost(step / rate if trains(model) else 0.0, whole[0] / rate, whole[1] / rate)


@cache
def encoding(depth: int) -> tuple[int, int]:
    """Operations to encode an image, and a text of 15 pieces."""
    image = TimmImageEncoder("vit_base_patch16_224", image_size=224, model_args={"depth": depth})
    text = ScratchTextEncoder(width=768, depth=depth, heads=12, vocab_size=30_522)
    words = torch.ones(1, 15, dtype=torch.int64)
    counts = []
    for encoder, inputs in (
        (image, {"pixels": torch.zeros(1, 3, 224, 224)}),
        (text, {"input_ids": words, "attention_mask": words}),
    ):
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            encoder(inputs)
        counts.append(int(counter.get_total_flops()))
    return counts[0], counts[1]


def trains(model: Matcher) -> bool:
    """Whether the encoders are trained."""
    return any(weight.requires_grad for weight in model.image.parameters())


def measured(cell: Cell, options: argparse.Namespace, folder: str) -> Cost:
    """From the clock, with the loaders of training, at the precision of the benchmark."""
    pairs = cell.config["data"]["init_args"]["batch_size"]
    model, data = built(cell, folder, pairs, pairs * (options.steps + 2), depth=LAYERS)
    model.to("cuda")
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-5, fused=True)
    seconds = []
    for batch in data.train_dataloader():
        batch = move_data_to_device(batch, model.device)
        if trains(model):
            with torch.autocast("cuda", torch.bfloat16):
                loss = model.training_loss(batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        torch.cuda.synchronize()
        seconds.append(time.perf_counter())
    step = (seconds[-1] - seconds[1]) / (len(seconds) - 2)
    per_item = []
    for modality, encode in (("image", model.image), ("text", model.text)):
        start = time.perf_counter()
        with torch.no_grad(), torch.autocast("cuda", torch.bfloat16):
            for _ in range(5):
                encode(batch[modality])
        torch.cuda.synchronize()
        per_item.append((time.perf_counter() - start) / 5 / pairs)
    return Cost(step if trains(model) else 0.0, *per_item)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spec", default="paper")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--tflops", type=float, default=150.0)
    return parser.parse_args()


if __name__ == "__main__":
    main()
