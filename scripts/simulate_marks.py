"""How often a method that is as good as the best loses its mark, in simulated tables whose truth is known.

    python scripts/simulate_marks.py --tables 1000

prints a row for each kind of table: the share of tables in which any of the truly best methods is found worse than
another in any column (it should be at most 5 %), and the share of truly worse methods that are found worse in rSum.
"""

import argparse
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from itmbench.evaluation.simultaneous import LEVEL, Method, compare_all

Floats = NDArray[np.float64]
GROUPS, QUERIES = 250, 4
"""Groups of images, and queries of each direction in a group."""
EASE = (-0.4, 0.4, 0.8)
"""A query hits within rank 1, 5 and 10 if its score exceeds minus these: about 34, 66 and 79 % do."""
DRAWS = 399


def hits(generator: np.random.Generator, seed_effect: Floats) -> Floats:
    """Shares of the metrics (six recalls and rSum) `[methods, seeds, groups, 7]`, given effects `[methods, seeds, 2]`.

    The score of a query has unit variance: 55 % is common to all methods (15 % to all queries of its group), 25 % is
    a method's own and 20 % a run's own.
    """
    methods, seeds, _ = seed_effect.shape
    queries = GROUPS * QUERIES
    recalls = []
    for direction in range(2):
        common = np.sqrt(0.4) * generator.normal(size=queries)
        common += np.sqrt(0.15) * np.repeat(generator.normal(size=GROUPS), QUERIES)
        own = np.sqrt(0.25) * generator.normal(size=(methods, 1, queries))
        run = np.sqrt(0.2) * generator.normal(size=(methods, seeds, queries))
        score = common + own + run + seed_effect[..., direction, None]
        hit = score[..., None] > -np.asarray(EASE)
        recalls.append(hit.reshape(methods, seeds, GROUPS, QUERIES, len(EASE)).sum(3) / queries)
    both = np.concatenate(recalls, -1)
    return np.concatenate([both, 100 * both.sum(-1, keepdims=True)], -1)


@cache
def scale() -> tuple[float, float]:
    """Variance of rSum over samples of images, and points of rSum for a unit of the score."""
    generator = np.random.default_rng(0)
    r_sum = hits(generator, np.zeros((200, 1, 2)))[..., -1]
    variance = ((r_sum - r_sum.mean(-1, keepdims=True)) ** 2).sum(-1).mean()
    step = np.full((200, 1, 2), 0.05)
    means = [hits(np.random.default_rng(1), sign * step)[..., -1].sum(-1).mean() for sign in (1, -1)]
    return float(variance), float((means[0] - means[1]) / 0.1)


class Kind(NamedTuple):
    """A kind of table.

    Args:
        truth: what is true of its methods, in words.
        points: true rSum of each method (relative).
        seeds: of each method.
        ratios: seed variance of each method, as a multiple of that of images.
        paired: whether the methods are variants of one training. What a seed adds to all of them is then half of the
            seed variance, and cancels.
    """

    truth: str
    points: Sequence[float]
    seeds: Sequence[int]
    ratios: Sequence[float]
    paired: bool = False


def table(generator: np.random.Generator, kind: Kind) -> list[Method]:
    """A random table of a kind."""
    variance, slope = scale()
    methods = len(kind.points)
    deviation = np.sqrt(variance * np.asarray(kind.ratios) / (2 if kind.paired else 1)) / slope
    common, own = generator.normal(size=(2, methods, max(kind.seeds), 2))
    effect = np.sqrt(0.7) * common[..., :1] + np.sqrt(0.3) * own  # directions rise and fall together
    runs = hits(generator, effect * deviation[:, None, None] + np.asarray(kind.points)[:, None, None] / slope)
    names = [["paired" if kind.paired else str(place)] * seeds for place, seeds in enumerate(kind.seeds)]
    return [
        Method(shares[: len(name)], (shares - shares.mean(1, keepdims=True))[: len(name)], name)
        for name, shares in zip(names, runs, strict=True)
    ]


def simulate(kind: Kind, tables: int) -> tuple[float, float]:
    """Share of tables in which a best method loses a mark, and share of the others that lose that of rSum."""
    lost, found = 0, []
    best = np.asarray(kind.points) == max(kind.points)
    first, second = np.triu_indices(len(best), 1)
    for number in range(tables):
        compared = compare_all(table(np.random.default_rng(number), kind), DRAWS, seed=tables + number)
        rejected = compared.p < LEVEL
        worse = np.zeros((len(best), rejected.shape[1]), bool)
        np.logical_or.at(worse, first, rejected & (compared.difference < 0))
        np.logical_or.at(worse, second, rejected & (compared.difference > 0))
        lost += worse[best].any()
        found += worse[~best, -1].tolist()
    return lost / tables, float(np.mean(found)) if found else float("nan")


def kinds() -> Iterator[Kind]:
    """Tables of equal methods, of uneven ones, of variants, and with real differences."""
    for methods, seeds in ((7, 3), (7, 5), (7, 10), (3, 3), (12, 3)):
        for ratio in (0, 1, 2):
            yield Kind("all equal", [0] * methods, [seeds] * methods, [ratio] * methods)
    for factor, seeds, ratio in product((2, 4), (3, 5, 10), (1, 2)):
        uneven = [ratio * factor] * 2 + [ratio / factor] * 5
        yield Kind(f"all equal, two vary {factor**2} times as much by seed", [0] * 7, [seeds] * 7, uneven)
    for few, ratios in product((3, 5), ([8, 0.25, 0.25], [0.25, 8, 8])):
        yield Kind("all equal, other numbers of seeds", [0] * 3, [few, 10, 10], ratios)
    for variants, seeds, ratio in product((2, 4), (3, 5), (1, 2)):
        yield Kind("all equal, variants", [0] * variants, [seeds] * variants, [ratio] * variants, paired=True)
    for seeds, ratio in product((3, 5, 10), (0, 1, 2)):
        yield Kind("3 equal, 4 worse by 20", [0] * 3 + [-20] * 4, [seeds] * 7, [ratio] * 7)
    for points, seeds, ratio in product((6, 20, 40), (3, 10), (0, 1, 2)):
        yield Kind(f"1 better by {points}", [0] + [-points] * 6, [seeds] * 7, [ratio] * 7)


def main() -> None:
    parser = argparse.ArgumentParser(description="Simulate how often marks are wrong.")
    parser.add_argument(
        "--tables", type=int, default=1000, help="tables of each kind; a quarter where one method is better"
    )
    tables = parser.parse_args().tables
    print("| methods | seeds | seed variance | truth | a best one loses | a worse one loses |")
    print("|---:|---:|---|---|---:|---:|")
    for kind in kinds():
        lost, found = simulate(kind, tables // 4 if kind.truth.startswith("1 better") else tables)
        seeds, variance = ("/".join(f"{value:g}" for value in dict.fromkeys(of)) for of in (kind.seeds, kind.ratios))
        power = "" if np.isnan(found) else f"{100 * found:.0f} %"
        cells = len(kind.points), seeds, variance, kind.truth, f"{100 * lost:.1f} %", power
        print("|", " | ".join(map(str, cells)), "|", flush=True)


if __name__ == "__main__":
    main()
