"""Published figures on a dataset, shown apart from what this suite measured."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import pandas as pd

# Name of a result's data -> dataset of the figures. Variants with another test set are left out.
DATASETS = {
    "flickr8k": "flickr8k",
    "flickr30k": "flickr30k",
    "flickr30k-regions": "flickr30k",
    "mirflickr25k": "mirflickr25k",
    "mirflickr25k-dcmh": "mirflickr25k",
    "nuswide-tc21": "nuswide",
    "nuswide-tc21-tagged": "nuswide",
}
# Heading -> columns of the file, joined as papers print them.
METRICS = {
    "i2t R@1/5/10": ("i2t/R@1", "i2t/R@5", "i2t/R@10"),
    "t2i R@1/5/10": ("t2i/R@1", "t2i/R@5", "t2i/R@10"),
    "rSum": ("rSum",),
    "i2t mAP": ("i2t/mAP",),
    "t2i mAP": ("t2i/mAP",),
}


@dataclass(frozen=True)
class Published:
    """Published figures measured in one way: texts to print, one row a method, in the order of the file."""

    title: str  # dataset and setting
    cells: pd.DataFrame


def published(data: Iterable[str], protocol: str) -> list[Published]:
    """The figures for some data and a protocol, given by the names in the results.

    One table a setting, because one method's mAP differs by 8 points between two papers.
    """
    known = figures()
    datasets = {DATASETS[name] for name in data if name in DATASETS}
    chosen = known[known["dataset"].isin(datasets) & (known["protocol"] == protocol)]
    return [
        Published(f"{dataset} as published, not measured here: {setting}", _cells(rows))
        for (dataset, setting), rows in chosen.groupby(["dataset", "setting"], sort=False)
    ]


@cache
def figures() -> pd.DataFrame:
    """The file, one row a method, all values as text in percent; empty where a paper lacks the metric."""
    with files("itmbench.report").joinpath("published.csv").open(encoding="utf-8") as file:
        return pd.read_csv(file, dtype=str, keep_default_na=False)


def _cells(rows: pd.DataFrame) -> pd.DataFrame:
    table = rows.set_index("method")
    cells = table[["pretraining", "ensemble"]].rename(columns={"pretraining": "pre-training"})
    for heading, keys in METRICS.items():
        if (table[keys[0]] != "").any():
            cells[heading] = table[list(keys)].replace("", "–").agg("/".join, axis=1)
    return cells.assign(source=table["source"])
