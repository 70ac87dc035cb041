"""How often a method that is as good as the best loses its mark, in simulated tables whose truth is known.

    python scripts/simulate_marks.py --tables 1000

prints a row for each kind of table: the share of tables in which any of the truly best methods is found worse than
another in any column (it should be at most 5 %), and the share of truly worse methods that are found worse in rSum.
"""

import argparse
from collections.abc import Sequence
from functools import cache
from itertools import product

import numpy as np
from numpy.typing import NDArray

from itmbench.evaluation.simultaneous import LEVEL, Method, compare_all

Floats = NDArray[np.float64]
GROUPS, QUERIES = 250, 4
"""Groups of images, and queries of each direction in a group."""
EASE = (-0.4, 0.4, 0.8)
"""A query hits within rank 1, 5 and 10 if its score exceeds minus these: about 34, 66 and 79 % do."""
DRAWS = 999


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


def table(generator: np.random.Generator, points: Sequence[float], seeds: int, ratios: Sequence[float]) -> list[Method]:
    """A table of methods with these true rSums (relative), and seed variances as multiples of that of images."""
    variance, slope = scale()
    deviation = np.sqrt(variance * np.asarray(ratios)) / slope
    common, own = generator.normal(size=(2, len(points), seeds, 2))
    effect = np.sqrt(0.7) * common[..., :1] + np.sqrt(0.3) * own  # directions rise and fall together
    runs = hits(generator, effect * deviation[:, None, None] + np.asarray(points)[:, None, None] / slope)
    return [
        Method(shares, shares - shares.mean(1, keepdims=True), [str(place)] * seeds)
        for place, shares in enumerate(runs)
    ]


def simulate(points: Sequence[float], seeds: int, ratios: Sequence[float], tables: int) -> tuple[float, float]:
    """Share of tables in which a best method loses a mark, and share of the others that lose that of rSum."""
    lost, found = 0, []
    best = np.asarray(points) == max(points)
    first, second = np.triu_indices(len(points), 1)
    for number in range(tables):
        compared = compare_all(table(np.random.default_rng(number), points, seeds, ratios), DRAWS)
        rejected = compared.p < LEVEL
        worse = np.zeros((len(points), rejected.shape[1]), bool)
        np.logical_or.at(worse, first, rejected & (compared.difference < 0))
        np.logical_or.at(worse, second, rejected & (compared.difference > 0))
        lost += worse[best].any()
        found += worse[~best, -1].tolist()
    return lost / tables, float(np.mean(found)) if found else float("nan")


def main() -> None:
    parser = argparse.ArgumentParser(description="Simulate how often marks are wrong.")
    parser.add_argument(
        "--tables", type=int, default=1000, help="tables of each kind; a quarter where one method is better"
    )
    tables = parser.parse_args().tables
    print("| methods | seeds | seed variance | truth | a best one loses | a worse one loses |")
    print("|---:|---:|---|---|---:|---:|")

    def row(points: list[float], seeds: int, ratios: list[float], variance: str, truth: str, tables: int) -> None:
        lost, found = simulate(points, seeds, ratios, tables)
        power = "" if np.isnan(found) else f"{100 * found:.0f} %"
        print(f"| {len(points)} | {seeds} | {variance} | {truth} | {100 * lost:.1f} % | {power} |", flush=True)

    kinds = [(7, seeds) for seeds in (3, 5, 10)] + [(3, 3), (12, 3)]
    for (methods, seeds), ratio in product(kinds, (0, 1, 2)):
        row([0.0] * methods, seeds, [ratio] * methods, f"{ratio}", "all equal", tables)
    for factor, seeds, ratio in product((2, 4), (3, 5, 10), (1, 2)):  # of two methods; the others have the inverse
        uneven = [ratio * factor] * 2 + [ratio / factor] * 5
        row([0.0] * 7, seeds, uneven, f"{ratio}, {factor**2} : 1", "all equal", tables)
    for seeds, ratio in product((3, 5, 10), (0, 1, 2)):
        row([0.0] * 3 + [-20.0] * 4, seeds, [ratio] * 7, f"{ratio}", "3 equal, 4 worse by 20", tables)
    for points, seeds, ratio in product((2, 4, 6, 20, 40), (3, 10), (0, 1, 2)):
        row([0.0] + [-points] * 6, seeds, [ratio] * 7, f"{ratio}", f"1 better by {points}", tables // 4)


if __name__ == "__main__":
    main()
