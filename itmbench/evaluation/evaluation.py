"""The outcome of an evaluation: metrics with intervals, and comparisons with other evaluations."""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from itmbench.errors import InputError, choice
from itmbench.evaluation.paired import Difference, Interval, PairedResults, parts


@dataclass(frozen=True, eq=False, repr=False)
class Evaluation:
    """Metrics of a model, and the outcome of every query.

    Args:
        metrics: means over the queries, by key.
        per_query: columns of equal length: "direction" ("i2t" or "t2i"), "query" (id of the image or text), "image" (id
            of the query's image), and "rank" (caption retrieval, from 1) or "ap" (label retrieval). With near twins
            also the direction "hard": "query" is a text and a twin of its image, "rank" 1 if the text scores higher
            with its image, else 2.
        setting: identifies protocol, gallery and labels of `itmbench.evaluate`, which comparisons must share; otherwise
            empty.
    """

    metrics: dict[str, float]
    per_query: dict[str, NDArray[Any]]
    setting: str = ""

    @property
    def objective(self) -> str:
        """The metric that methods are ordered by: "rSum" of captions, "mAP" of labels."""
        return "rSum" if "rSum" in self.metrics else "mAP"

    def interval(self, metric: str) -> Interval:
        """95 % confidence interval of a metric over samples of images, whose queries stay together.

        Args:
            metric: "i2t/R@K", "t2i/R@K", "rSum", "hard_negative_accuracy", "i2t/mAP", "t2i/mAP" or "mAP".

        Returns:
            The bounds, in the unit of the metric.

        Raises:
            InputError: the metric was not measured, or the outcomes of single queries do not determine it.
        """
        if metric not in self._testable:
            raise InputError(f"{metric}: has no interval; {choice(str(metric), self._testable)}")
        return self._results.interval("", metric)

    def compare(self, other: "Evaluation", metric: str | None = None) -> Difference:
        """How much better this model is than another on the same queries, and whether that is distinguishable from 0.

        The verdict is about these two models on new images. Whether one method is better than another takes several
        seeds of each (`itmbench compare`).

        Args:
            other: an evaluation of the same images and texts.
            metric: as in ``interval``; the objective by default.

        Returns:
            The difference (positive if this model is better), its 95 % interval and p-value (signs of images'
            differences flipped) and, as ``verdict``, both in words.

        Raises:
            InputError: the other has different queries, another protocol, gallery or labels, one measures captions and
                the other labels, or one has no such metric.
        """
        if not isinstance(other, Evaluation):
            raise InputError(f"compare: give another Evaluation, not {type(other).__name__}")
        if self.objective != other.objective:
            raise InputError("compare: one evaluation measures captions and the other labels; use two of one kind")
        metric = metric or self.objective
        for evaluation in (self, other):
            if metric not in evaluation._testable:
                raise InputError(f"{metric}: cannot be compared; {choice(str(metric), evaluation._testable)}")
        models = {"this model": [self.per_query], "the other": [other.per_query]}
        results = PairedResults(models, [metric], fixed=models)
        if self.setting != other.setting:
            raise InputError("compare: the other was evaluated with another protocol, gallery or labels; use the same")
        return results.difference("this model", "the other", metric)

    @cached_property
    def _testable(self) -> list[str]:
        """Metrics with an interval: those that are means over the stored queries."""
        means = self._results
        return [key for key in self.metrics if parts(key) and math.isclose(means.mean("", key), self.metrics[key])]

    @cached_property
    def _results(self) -> PairedResults:
        return PairedResults({"": [self.per_query]}, [key for key in self.metrics if parts(key)])

    def _rows(self) -> list[tuple[str, str, str]]:
        """Name, value and interval of every metric that has an interval."""
        digits = {key: 1 if key == "rSum" else 3 for key in self._testable}
        return [
            (key, f"{self.metrics[key]:.{n}f}", "{:.{n}f} to {:.{n}f}".format(*self.interval(key), n=n))
            for key, n in digits.items()
        ]

    def _title(self) -> str:
        counts = [f"{np.sum(self.per_query['direction'] == side):,} {side}" for side in ("i2t", "t2i")]
        return f"{' and '.join(counts)} queries, 95 % intervals"

    def __repr__(self) -> str:
        lines = [f"  {key:<22} {value:>6}   {interval}" for key, value, interval in self._rows()]
        return "\n".join([f"Evaluation: {self._title()}", *lines])

    def _repr_html_(self) -> str:
        cells = ("".join(f"<td>{cell}</td>" for cell in row) for row in self._rows())
        body = "".join(f"<tr>{row}</tr>" for row in cells)
        head = "<tr><th>metric</th><th>value</th><th>95 % interval</th></tr>"
        return f"<table><caption>{self._title()}</caption>{head}{body}</table>"
