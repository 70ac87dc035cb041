"""Methods ranked over several datasets."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from itmbench.evaluation.paired import LEVEL
from itmbench.report.tables import Table

ENOUGH = 10
"""The chi-squared distribution fits Friedman's statistic, as a rule of thumb, from more than ten datasets on."""


class AverageRanks(NamedTuple):
    """What the ranks on several datasets say.

    Args:
        datasets: on which all the methods were measured.
        ranks: method -> mean of its ranks by the objective, 1 the best; best first.
        p: of Friedman's test that all methods are equally good.
        critical: mean ranks that differ by less are not told apart (Nemenyi's test, 5 %).
        apart: the pairs, better one first, that differ by at least that much.
    """

    datasets: list[str]
    ranks: pd.Series
    p: float
    critical: float
    apart: list[tuple[str, str]]


def average_ranks(tables: Sequence[Table]) -> list[AverageRanks]:
    """A summary for every set of at least two datasets on which at least three methods were measured.

    Demšar, Statistical Comparisons of Classifiers over Multiple Data Sets, JMLR 7 (2006). Only tables of one
    pre-training class are put together. Left out are transductive tables, methods that failed the leak audit, and
    datasets with several tables of that class: which of their protocols should count is not for a program to say.

    Args:
        tables: of results.
    """
    found = []
    for pretraining in dict.fromkeys(table.pretraining for table in tables):
        of = [table for table in tables if table.pretraining == pretraining and table.ranked]
        datasets = [table.dataset for table in of]
        means = {
            table.dataset: table.rows.groupby("label")[table.objective].mean()[table.ranked]
            for table in of
            if datasets.count(table.dataset) == 1
        }
        found += _summaries(pd.DataFrame(means))
    return found


def critical_difference(methods: int, datasets: int) -> float:
    """Of mean ranks, by Nemenyi's test at 5 % (Demšar's equation 6 of section 3.2.2).

    >>> round(critical_difference(4, 14), 2)
    1.25
    """
    q = stats.studentized_range.ppf(1 - LEVEL, methods, np.inf) / np.sqrt(2)
    return float(q * np.sqrt(methods * (methods + 1) / (6 * datasets)))


def in_words(summary: AverageRanks) -> str:
    """A few lines for the screen and for Markdown."""
    n, k = len(summary.datasets), len(summary.ranks)
    lines = [
        f"Average rank over {n} datasets ({', '.join(summary.datasets)}):",
        ", ".join(f"{method} {rank:.2f}" for method, rank in summary.ranks.items()) + ".",
        f"Friedman's test that all are equally good: p = {summary.p:.3f}. Nemenyi's critical difference of {k} methods "
        f"at 5 %: {summary.critical:.2f}; " + _apart(summary),
    ]
    if n <= ENOUGH:
        lines.append(
            f"{n} datasets are too few for this to mean much: more than {ENOUGH} are asked for (Demšar, 2006)."
        )
    return "\n".join(lines)


def _apart(summary: AverageRanks) -> str:
    if not summary.apart:
        return "no two methods are that far apart."
    return "apart by it: " + "; ".join(f"{better} before {worse}" for better, worse in summary.apart) + "."


def _summaries(means: pd.DataFrame) -> list[AverageRanks]:
    """The largest sets of methods and datasets in the means `[methods, datasets]`, NaN where one was not measured."""
    measured = [frozenset(of.index[of.notna()]) for _, of in means.iterrows()]
    found: dict[frozenset[str], frozenset[str]] = {}  # methods -> the most datasets that they share
    shared = set(measured)
    while (more := shared | {one & other for one in shared for other in measured}) != shared:
        shared = more
    for datasets in sorted(shared, key=len):
        methods = frozenset(name for name, of in zip(means.index, measured, strict=True) if of >= datasets)
        if len(datasets) >= 2 and len(methods) >= 3:
            found[methods] = datasets
    return [_summary(means.loc[sorted(methods), [d for d in means if d in of]]) for methods, of in found.items()]


def _summary(means: pd.DataFrame) -> AverageRanks:
    ranks = means.rank(ascending=False).mean(axis=1).sort_values(kind="stable")
    critical = critical_difference(*means.shape)
    apart = [(a, b) for a in ranks.index for b in ranks.index if ranks[b] - ranks[a] >= critical]
    p = stats.friedmanchisquare(*means.to_numpy()).pvalue
    return AverageRanks(list(map(str, means)), ranks, float(p), critical, apart)
