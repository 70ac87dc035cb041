"""Methods ranked over several datasets."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from itmbench.evaluation.paired import LEVEL
from itmbench.report.tables import Table

ENOUGH = 10
"""Friedman's statistic is about chi-squared distributed, as a rule of thumb, with more than this many datasets."""


class AverageRanks(NamedTuple):
    """Average ranks of methods over several datasets."""

    datasets: list[str]  # those on which all methods were measured
    ranks: pd.Series  # method -> mean rank by the objective (1 is best), best first
    p: float  # Friedman's test of the hypothesis that all methods are equally good
    critical: float  # Nemenyi's critical difference of mean ranks at 5 %
    apart: list[tuple[str, str]]  # pairs of methods, better first, whose mean ranks differ by at least that much
    left_out: Sequence[str] = ()  # methods that were not measured on all of them


def average_ranks(tables: Sequence[Table]) -> list[AverageRanks]:
    """Rank methods over the datasets, at least two, that at least three methods share.

    Demšar, "Statistical Comparisons of Classifiers over Multiple Data Sets", JMLR 7 (2006). Tables of different
    pre-training classes are ranked apart. Left out: transductive tables, methods that failed the leak audit, and
    datasets with several tables of one class, because the choice among their protocols would be arbitrary.
    """
    summaries = []
    for pretraining in dict.fromkeys(table.pretraining for table in tables):
        selected = [table for table in tables if table.pretraining == pretraining and table.ranked]
        datasets = [table.dataset for table in selected]
        means = {
            table.dataset: table.rows.groupby("label")[table.objective].mean()[table.ranked]
            for table in selected
            if datasets.count(table.dataset) == 1
        }
        summaries += _summaries(pd.DataFrame(means))
    return summaries


def critical_difference(methods: int, datasets: int) -> float:
    """Nemenyi's critical difference of mean ranks at 5 % (Demšar, section 3.2.2, equation 6).

    >>> round(critical_difference(4, 14), 2)
    1.25
    """
    q = stats.studentized_range.ppf(1 - LEVEL, methods, np.inf) / np.sqrt(2)
    return float(q * np.sqrt(methods * (methods + 1) / (6 * datasets)))


def in_words(summary: AverageRanks) -> str:
    """A summary in a few lines."""
    n, k = len(summary.datasets), len(summary.ranks)
    without = f" of the methods measured on all, without {', '.join(summary.left_out)}" if summary.left_out else ""
    lines = [
        f"Average rank over {n} datasets ({', '.join(summary.datasets)}){without}:",
        ", ".join(f"{method} {rank:.2f}" for method, rank in summary.ranks.items()) + ".",
        f"Friedman's test that all are equally good: p = {summary.p:.3f}. Nemenyi's critical difference of {k} methods "
        f"at 5 %: {summary.critical:.2f}; " + _apart(summary),
    ]
    if n <= ENOUGH:
        lines.append(f"{n} datasets are too few for this test; it needs more than {ENOUGH} (Demšar, 2006).")
    return "\n".join(lines)


def _apart(summary: AverageRanks) -> str:
    if not summary.apart:
        return "no two methods differ by that much."
    return "pairs that differ by that much: " + "; ".join(f"{a} before {b}" for a, b in summary.apart) + "."


def _summaries(means: pd.DataFrame) -> list[AverageRanks]:
    """Summaries of sets of methods in the means `[methods, datasets]`, NaN if not measured.

    Methods are left out one by one, those of the fewest datasets first; each time the others share more datasets, they
    are summarised.
    """
    summaries: list[AverageRanks] = []
    order = means.notna().sum(axis=1).sort_values(kind="stable").index
    for left_out in range(len(order) - 2):
        shared = means.loc[sorted(order[left_out:])].dropna(axis=1)
        if shared.shape[1] > max(1, len(summaries[-1].datasets) if summaries else 1):
            summaries.append(_summary(shared)._replace(left_out=sorted(order[:left_out])))
    return summaries


def _summary(means: pd.DataFrame) -> AverageRanks:
    ranks = means.rank(ascending=False).mean(axis=1).sort_values(kind="stable")
    critical = critical_difference(*means.shape)
    apart = [(a, b) for a in ranks.index for b in ranks.index if ranks[b] - ranks[a] >= critical]
    p = stats.friedmanchisquare(*means.to_numpy()).pvalue
    return AverageRanks(list(map(str, means)), ranks, float(p), critical, apart)
