"""How much memory exact scores by tokens take at NUS-WIDE's true size, and how fast they are, on synthetic tokens.

    python scripts/perf/evaluate_at_scale.py [--methods sedra scan sgraf] [--images 195834] [--regions 49] [--words 12]
        [--dim 256] [--queries 32] [--device cpu]

Text queries search all images under the label protocol's metrics. Image tokens are written in batches, in half
precision, into a table that is allocated once, as evaluation does, and fetched tile by tile. The number of queries sets
the time only: memory beside the table is that of a tile and of the scores of a block of queries. Every method runs in a
process of its own. "beside the table" is the process's peak memory (on a GPU, that of the device) without the table and
without what the process held before.
"""

import argparse
import multiprocessing
import time
from typing import Any

import numpy as np
import torch
from timing import peak
from torch.nn.functional import normalize

from itmbench.encoders import Embeddings
from itmbench.encoders.table import EmbeddingTable
from itmbench.evaluation import label_retrieval
from itmbench.methods.scan import SCAN
from itmbench.methods.sedra.module import SEDRA
from itmbench.methods.sgraf import SGRAF

METHODS: dict[str, Any] = {"sedra": SEDRA, "scan": SCAN, "sgraf": SGRAF}
BATCH = 256


def measure(name: str, options: argparse.Namespace) -> tuple[float, float, float, float]:
    """GB of the table, GB beside it on the host, GB on the GPU, and pairs scored a second."""
    torch.manual_seed(0)
    device = torch.device(options.device)
    model = METHODS[name](dim=options.dim).eval().to(device)
    extra = 1 if name == "sedra" else 0  # SEDRA keeps a share beside every token
    asked, held = ((torch.rand(n, 21) < 0.1).float() for n in (options.queries, options.images))
    texts = random_items(options.queries, options.words, options.dim + extra, device)
    with torch.no_grad():
        warm_up = random_items(8, options.regions, options.dim + extra, device)
        label_retrieval(texts[:2], warm_up, asked[:2], held[:8], scorer=lambda a, b: model.score(b, a).T)
        before = peak()
        table = EmbeddingTable(np.arange(options.images))
        for start in range(0, options.images, BATCH):
            rows = torch.arange(start, min(start + BATCH, options.images))
            table.append((rows, random_items(len(rows), options.regions, options.dim + extra, device)))
        images = table.embeddings()
        assert images.tokens is not None and not table.missing
        began = time.perf_counter()
        label_retrieval(texts, images, asked, held, scorer=lambda a, b: model.score(b, a).T)
    seconds = time.perf_counter() - began
    size = (images.tokens.nbytes + images.pooled.nbytes) / 1e9
    on_gpu = torch.cuda.max_memory_allocated() / 1e9 if device.type == "cuda" else 0.0
    return size, (peak() - before) * 2**20 / 1e9 - size, on_gpu, options.queries * options.images / seconds


def random_items(count: int, tokens: int, dim: int, device: torch.device) -> Embeddings:
    """Unit vectors as tokens, in half precision."""
    drawn = normalize(torch.randn(count, tokens, dim, device=device), dim=2)
    mask = torch.ones(count, tokens, dtype=torch.bool, device=device)
    return Embeddings(normalize(drawn.mean(1), dim=1), drawn.half(), mask)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    sizes = {"images": 195_834, "regions": 49, "words": 12, "dim": 256, "queries": 32}
    for name, value in sizes.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args(arguments)
    print(
        f"{options.queries} queries of {options.words} words x {options.images:,} images of {options.regions} regions, "
        f"D = {options.dim}, {options.device}, {torch.get_num_threads()} threads"
    )
    for name in options.methods:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            size, beside, on_gpu, rate = pool.apply(measure, (name, options))
        gpu = f", {on_gpu:.2f} GB on the GPU" if on_gpu else ""
        print(f"{name}: table {size:.2f} GB, {beside:.2f} GB beside the table{gpu}, {rate:,.0f} pairs/s", flush=True)


if __name__ == "__main__":
    main()
