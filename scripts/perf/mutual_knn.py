"""How fast mutual context is found, as ratios within one run, and how much memory it takes.

    python scripts/perf/mutual_knn.py [--repeats 3] [--nodes 20000] [--dim 512] [--k 8]

The yardstick is a bare product of all nodes with all nodes and topk of its rows, in tiles of the same size: neighbours
without modalities, exclusions, mutual edges or overlaps. Exact search of faiss is timed beside it where faiss-cpu is
installed; `pip install --no-deps --target DIR faiss-cpu`, then PYTHONPATH=DIR, leaves the environment as it is. "Extra"
is the growth of the process's peak memory from just before the first measured call.
"""

import argparse
import importlib
from collections.abc import Callable

import torch
from timing import best_of, peak
from torch import Tensor
from torch.nn.functional import normalize

from itmbench.methods.mcr_dgn import context
from itmbench.methods.mcr_dgn.context import Context, Edges, Nodes, own_images


def mutual(nodes: Nodes, k: int) -> Edges:
    """Edges of the nodes among themselves."""
    halves = nodes.vectors[nodes.part(0)], nodes.vectors[nodes.part(1)]
    return Context(nodes, k).attach(halves, own_images(nodes.item))


def main() -> None:
    options = parse()
    torch.manual_seed(0)
    pairs = options.nodes // 2
    # Pairs that are near each other, in clusters: of random directions hardly any are mutual neighbours.
    centres = torch.randn(max(1, pairs // 50), options.dim)
    kind = torch.randint(len(centres), (pairs,))
    vectors = torch.cat([centres[kind] + torch.randn(pairs, options.dim) for _ in range(2)])
    nodes = Nodes(normalize(vectors, dim=1), torch.arange(pairs).repeat(2), pairs)
    mutual(Nodes(nodes.vectors[:64], nodes.item[:64], 32), options.k)
    before = peak()
    edges = mutual(nodes, options.k)
    extra = peak() - before
    calls: dict[str, Callable[[], object]] = {
        "bare product and topk": lambda: bare(nodes.vectors, options.k),
        "mutual context": lambda: mutual(nodes, options.k),
    }
    faiss = exact_search(nodes.vectors, options.k)
    if faiss is not None:
        calls["faiss, exact search"] = faiss
    times = best_of(options.repeats, *calls.values())
    print(
        f"{len(nodes):,} nodes, D = {options.dim}, k = {options.k} of each modality, "
        f"{torch.get_num_threads()} threads; {len(edges):,} edges"
    )
    goals = {"mutual context": "at most 1.5"}
    for name, seconds in zip(calls, times, strict=True):
        print(f"{name:<22} {seconds:>8.2f} s {seconds / times[0]:>6.2f} x  {goals.get(name, '')}")
    print(f"{'mutual context: extra':<22} {extra:>6.0f} MiB           under 954 MiB (1 GB)")
    if faiss is None:
        print("faiss is not installed, so its exact search was not timed: pip install faiss-cpu")


def bare(vectors: Tensor, k: int) -> list[object]:
    """As many neighbours, 2 k, of all nodes among all."""
    return [(rows @ vectors.T).topk(2 * k, dim=1) for rows in vectors.split(context._TILE // len(vectors))]


def exact_search(vectors: Tensor, k: int) -> Callable[[], object] | None:
    """Search of faiss for the same; None where it is not installed."""
    try:
        faiss = importlib.import_module("faiss")
    except ImportError:
        return None
    faiss.omp_set_num_threads(torch.get_num_threads())
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors.numpy())
    return lambda: index.search(vectors.numpy(), 2 * k)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in {"repeats": 3, "nodes": 20_000, "dim": 512, "k": 8}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    return parser.parse_args()


if __name__ == "__main__":
    main()
