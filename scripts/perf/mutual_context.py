"""Time mutual context against a bare product with top-k, in the same run, and count what attaching adds to an encoder.

    python scripts/perf/mutual_context.py [--pairs 10000] [--dim 128] [--k 32] [--repeats 3]

Searched is a bank of ``--pairs`` nodes of one kind: the neighbourhoods within the bank, and those of as many items.
"""

import argparse

import torch
from timing import best_of
from torch.nn.functional import normalize

from itmbench.methods.mcr_dgn.context import Context

ROWS = 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("pairs", 10_000), ("dim", 128), ("k", 32), ("repeats", 3)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    torch.manual_seed(0)
    bank, items = (normalize(torch.randn(options.pairs, options.dim), dim=1) for _ in range(2))

    def bare() -> None:
        for rows in items.split(ROWS):
            (rows @ bank.T).topk(options.k, dim=1)

    context = Context(bank, options.k, "mutual")
    plain, build, attach = best_of(
        options.repeats,
        bare,
        lambda: Context(bank, options.k, "mutual"),
        lambda: [context.attach(rows) for rows in items.split(ROWS)],
    )
    print(f"{options.pairs:,} nodes of {options.dim} numbers, k = {options.k}, {torch.get_num_threads()} threads")
    print(f"product and top-k    {plain:7.2f} s")
    print(f"neighbourhoods       {build:7.2f} s, {build / plain:.2f} times as long")
    print(f"attaching            {attach:7.2f} s, {attach / plain:.2f} times as long")
    print(f"per node attached    {2 * options.pairs * options.dim / 1e6:.1f} MFLOP")


if __name__ == "__main__":
    main()
