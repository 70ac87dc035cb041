"""What SEDRA and MCR-DGN cost on a GPU at the sizes of benchmarks/paper.yaml, and how fast SEDRA scores every pair.

    python scripts/perf/gpu.py [--batch-size 128] [--steps 20] [--depth 12] [--images 1000]

A training step of ViT-B/16 and BERT-base (random weights) in bf16 on a batch that is on the GPU already, eager and
with both encoders compiled: milliseconds, the highest memory, and counted operations a second beside those of one
large bf16 product. Then caption retrieval over all pairs of images x 5 captions, 197 x 24 tokens of 256 numbers, in
float32 as evaluation does. Without a GPU it runs on the CPU, to be tried at small sizes.
"""

import argparse
import os
import tempfile
import time
from dataclasses import replace

import torch
from gpu_hours import built
from lightning.fabric.utilities import move_data_to_device
from pair_scoring import for_sedra, unit
from torch.utils.flop_counter import FlopCounterMode

from itmbench.evaluation import evaluate
from itmbench.methods.base import Matcher
from itmbench.methods.sedra.module import SEDRA
from itmbench.runner.spec import load_cells, merge

CELLS = (("flickr30k", "sedra"), ("nuswide", "mcr_dgn"))


def main() -> None:
    options = parse()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    name = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    rate = matmul_rate(device, options.matmul)
    product = f"{options.matmul}^3 product in bf16"
    print(f"{name}, torch {torch.__version__}; {product}: {rate / 1e12:.1f} TFLOP/s", flush=True)
    cells = {(cell.dataset, cell.method): cell for cell in load_cells("paper") if cell.seed == 0}
    for compiled in (False, True):
        for place in CELLS:
            with tempfile.TemporaryDirectory() as folder:
                os.environ["ITMBENCH_CACHE"] = folder
                small = merge(cells[place].config, {"data": {"init_args": {"batch_size": options.batch_size}}})
                cell = replace(cells[place], config=small)
                model, data = built(cell, folder, options.batch_size, options.batch_size, options.depth)
                batch = move_data_to_device(next(iter(data.train_dataloader())), device)
                print(step_cost(model.to(device), batch, options.steps, compiled, rate), flush=True)
        if not compiled:
            print(all_pairs(device, options.images), flush=True)


def step_cost(model: Matcher, batch: object, steps: int, compiled: bool, rate: float) -> str:
    """One line about a training step."""
    device = model.device
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-5, fused=True)

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16):
            loss = model.training_loss(batch)  # type: ignore[arg-type]
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    with FlopCounterMode(display=False) as counter:
        step()
    if compiled:
        model.image.compile()
        model.text.compile()
    for _ in range(3):
        step()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    seconds = timed(step, steps, device)
    memory = torch.cuda.max_memory_allocated() / 2**30 if device.type == "cuda" else float("nan")
    flops = counter.get_total_flops() / seconds
    return (
        f"{type(model).__name__:<7} {'compiled' if compiled else 'eager':<8} {1000 * seconds:8.1f} ms a step, "
        f"{memory:5.1f} GiB, {flops / 1e12:6.1f} TFLOP/s, {100 * flops / rate:3.0f} % of the product"
    )


def all_pairs(device: torch.device, images: int) -> str:
    """One line about caption retrieval with SEDRA's own scores."""
    torch.manual_seed(0)
    rows, columns = for_sedra(unit(images, 197, 256), unit(5 * images, 24, 256))
    owner = torch.arange(images).repeat_interleave(5)
    model = SEDRA(dim=256).eval().to(device)
    with torch.no_grad():
        start = time.perf_counter()
        evaluate(rows.to(device), columns.to(device), owner, scorer=model.score)
        seconds = time.perf_counter() - start
    return f"SEDRA, all {images} x {5 * images} pairs of 197 x 24 tokens: {seconds:.1f} s"


def matmul_rate(device: torch.device, size: int) -> float:
    """Operations a second of one large product in bf16."""
    left, right = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    left @ right
    return 2 * size**3 / timed(lambda: left @ right, 10, device)


def timed(call: object, repeats: int, device: torch.device) -> float:
    """Mean seconds of a call."""
    assert callable(call)
    wait = torch.cuda.synchronize if device.type == "cuda" else (lambda: None)
    wait()
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    wait()
    return (time.perf_counter() - start) / repeats


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sizes = {"batch-size": 128, "steps": 20, "depth": 12, "images": 1000, "matmul": 8192}
    for name, value in sizes.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    return parser.parse_args()


if __name__ == "__main__":
    main()
