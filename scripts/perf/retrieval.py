"""How fast retrieval is measured, as ratios within one run, and how much memory it takes.

    python scripts/perf/retrieval.py [--repeats 3] [--library-queries 400] [--only captions labels codes large]

Every case runs in a process of its own. "extra" is the growth of that process's peak memory from just before the first
measured call, after the inputs exist and a small call has loaded what is loaded once.
"""

import argparse
import multiprocessing

import torch
from timing import best_of, peak
from torch import Tensor
from torchmetrics.retrieval import RetrievalMAP

from itmbench.evaluation import caption_retrieval, hamming_retrieval, label_retrieval
from itmbench.evaluation.functional import average_precision
from itmbench.evaluation.ranking import sort_rows
from itmbench.processors import sort_without_avx512_on_zen_4

DIMENSIONS = 512


def captions(options: argparse.Namespace) -> list[tuple[str, str, str]]:
    """5,000 images x 25,000 texts, both directions, against one matrix product of all by all into a ready buffer."""
    images, texts = torch.randn(5_000, DIMENSIONS), torch.randn(25_000, DIMENSIONS)
    owner = torch.arange(5_000).repeat_interleave(5)
    caption_retrieval(images[:100], texts[:100], owner[:100])
    before = peak()
    caption_retrieval(images, texts, owner)
    extra = peak() - before
    scores = torch.empty(5_000, 25_000)
    product, ours = best_of(
        options.repeats,
        lambda: torch.mm(images, texts.T, out=scores),
        lambda: caption_retrieval(images, texts, owner),
    )
    return [
        ("captions 5,000 x 25,000: time", f"{ours:.2f} s", f"matmul {product:.2f} s"),
        ("captions 5,000 x 25,000: time over matmul", f"{ours / product:.2f}", "at most 2.5"),
        ("captions 5,000 x 25,000: extra", f"{extra:.0f} MiB", "under 954 MiB (1 GB)"),
    ]


def labels(options: argparse.Namespace) -> list[tuple[str, str, str]]:
    """2,000 queries x 18,015 items, 24 labels, 3.78 an item, against torchmetrics on some of the queries."""
    tables = torch.randn(2_000, DIMENSIONS), torch.randn(18_015, DIMENSIONS)
    hot = multi_hot(2_000, 24, 3.78), multi_hot(18_015, 24, 3.78)
    unit = [torch.nn.functional.normalize(table) for table in tables]
    scores = unit[0] @ unit[1].T + 2  # above 0, because torchmetrics takes what is not for irrelevant
    relevance = hot[0] @ hot[1].T > 0
    n = options.library_queries
    rows = torch.arange(n)[:, None].expand(n, 18_015).flatten()

    def library() -> Tensor:
        metric = RetrievalMAP()
        metric.update(scores[:n].flatten(), relevance[:n].flatten(), rows)
        return metric.compute()

    keys, some = torch.randint(2**62, (50, 18_015)), torch.empty(50, 18_015, dtype=torch.int64)
    product = torch.empty_like(scores)

    def bare() -> None:
        torch.mm(unit[0], unit[1].T, out=product)
        for _ in range(2_000 // len(keys)):
            sort_rows(some.copy_(keys))

    ours = average_precision(scores, relevance)
    torch.testing.assert_close(float(library()), float(ours[:n].mean()), rtol=0, atol=1e-3)  # ties are lost here only
    theirs, sorting, ap, everything = best_of(
        options.repeats,
        library,
        bare,
        lambda: average_precision(scores, relevance),
        lambda: label_retrieval(*tables, *hot),
    )
    theirs *= 2_000 / n
    return [
        (f"labels 2,000 x 18,015: torchmetrics mAP, {n} queries extrapolated", f"{theirs:.2f} s", ""),
        ("labels 2,000 x 18,015: average_precision of the same scores", f"{ap:.2f} s", ""),
        ("labels 2,000 x 18,015: torchmetrics over average_precision", f"{theirs / ap:.1f}", "at least 30"),
        ("labels 2,000 x 18,015: label_retrieval, scores and all metrics included", f"{everything:.2f} s", ""),
        ("the same over one matmul and one sort of int64 keys", f"{everything / sorting:.2f}", "at most 1.5"),
    ]


def codes(options: argparse.Namespace) -> list[tuple[str, str, str]]:
    """The same queries and items as codes of 64 bits, against vectors of 64 numbers, all metrics of either."""
    tables = torch.randn(2_000, 64), torch.randn(18_015, 64)
    hot = multi_hot(2_000, 24, 3.78), multi_hot(18_015, 24, 3.78)
    hamming_retrieval(tables[0][:100], tables[1], hot[0][:100], hot[1])
    floats, bits = best_of(
        options.repeats,
        lambda: label_retrieval(*tables, *hot),
        lambda: hamming_retrieval(*tables, *hot),
    )
    return [
        ("codes of 64 bits, 2,000 x 18,015: hamming_retrieval", f"{bits:.2f} s", f"label_retrieval {floats:.2f} s"),
        ("codes of 64 bits, 2,000 x 18,015: speed over floats", f"{floats / bits:.0f}", "at least 10"),
    ]


def large(options: argparse.Namespace) -> list[tuple[str, str, str]]:
    """2,100 queries x 193,734 items, 21 labels, one direction, all metrics."""
    tables = torch.randn(2_100, DIMENSIONS), torch.randn(193_734, DIMENSIONS)
    hot = multi_hot(2_100, 21, 2.0), multi_hot(193_734, 21, 2.0)
    label_retrieval(tables[0][:100], tables[1][:100], hot[0][:100], hot[1][:100])
    before = peak()
    [seconds] = best_of(1, lambda: label_retrieval(*tables, *hot))
    return [
        ("labels 2,100 x 193,734: time", f"{seconds:.1f} s", "under 25 s"),
        ("labels 2,100 x 193,734: extra", f"{peak() - before:.0f} MiB", "under 954 MiB (1 GB)"),
    ]


def multi_hot(items: int, classes: int, mean: float) -> Tensor:
    """Random labels, ``mean`` an item."""
    return (torch.rand(items, classes) < mean / classes).float()


def main() -> None:
    """Run the cases and print what they found beside what is asked."""
    cases = {case.__name__: case for case in (captions, labels, codes, large)}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3, help="calls of each kind, the shortest counts (3)")
    parser.add_argument("--library-queries", type=int, default=400, help="queries that torchmetrics gets (400)")
    parser.add_argument("--only", nargs="+", choices=cases, default=list(cases), help="cases to run (all)")
    options = parser.parse_args()
    print(f"{torch.get_num_threads()} threads, D = {DIMENSIONS}, torch {torch.__version__}")
    sort_without_avx512_on_zen_4()  # as the command line does; the processes of the cases inherit it
    for name in options.only:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            for what, found, asked in pool.apply(cases[name], (options,)):
                print(f"{what:<75}{found:>10}   {asked}", flush=True)


if __name__ == "__main__":
    main()
