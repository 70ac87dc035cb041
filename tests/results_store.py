"""A store of results as a benchmark leaves it: two datasets, two methods, three seeds."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from itmbench import store

METHODS = ("dual_infonce", "dual_triplet")
SEEDS = (0, 1, 2)
CAPTION = {"name": "caption", "version": 1, "objective": "rSum", "ks": [1, 5, 10], "ties": "pessimistic"}
LABEL = {
    "name": "label", "version": 1, "objective": "mAP", "cutoffs": [50], "normaliser": "retrieved",
    "ties": "pessimistic",
}  # fmt: skip


def caption_metrics(ranks: pd.DataFrame) -> dict[str, float]:
    recalls = {
        f"{direction}/R@{k}": float((of["rank"] <= k).mean())
        for direction, of in ranks.groupby("direction")
        if direction != "hard"
        for k in (1, 5, 10)
    }
    r_sum = 100 * sum(recalls.values())
    return {
        **recalls,
        "rSum": r_sum,
        "hard_negative_accuracy": float((ranks["rank"][ranks["direction"] == "hard"] == 1).mean()),
        "truth/rSum": 1.1 * r_sum,
        "chance/rSum": 12.3,
    }


def label_metrics(precisions: pd.DataFrame) -> dict[str, float]:
    means = {f"{direction}/mAP": float(of["ap"].mean()) for direction, of in precisions.groupby("direction")}
    top = {f"{key}@50": value + 0.1 for key, value in means.items()}
    mean = float(np.mean(list(means.values())))
    return {
        **means,
        "mAP": mean,
        "unseen/mAP": 0.9 * mean,
        **top,
        "i2t/P@50": 0.5,
        "t2i/P@50": 0.4,
        "chance/mAP": 0.456,
    }


def make_result(dataset: str, method: str, seed: int, metrics: dict[str, float]) -> store.Result:
    caption = "rSum" in metrics
    return store.Result(
        key=f"{dataset}-{method}-{seed}",
        benchmark="mini",
        dataset=dataset,
        method=method,
        seed=seed,
        metrics=metrics,
        validation=metrics["rSum" if caption else "mAP"] * 1.02,
        protocol=CAPTION if caption else LABEL,
        data={
            "name": dataset,
            "fingerprint": f"{len(dataset):016x}",
            "counts": [
                {"what": "images", "found": 1200, "published": 1200},
                {"what": "captions", "found": 5990, "published": 6000},
                {"what": "labels", "found": 7, "published": None},
            ],
        },
        pretraining="scratch",
        inductive=True,
        parameters={"all": 1_234_567, "trained": 1_200_000},
        flops={"image": 17_600_000, "text": 4_100_000},
        throughput={"train_pairs_per_second": 712.3, "images_per_second": 1520.0, "texts_per_second": 5210.0},
        peak_memory=812_000_000,
        seconds=61.5 + 9 * seed + 20 * METHODS.index(method),
        epochs=20,
        hardware={"cpu": "A processor", "cores": 2, "gpu": None, "devices": 1, "precision": "32-true"},
        versions={"itmbench": "0.1.0", "python": "3.11.9", "torch": "2.10.0"},
        git={"commit": "0123456789abcdef0123456789abcdef01234567", "dirty": False},
        finished=f"2026-01-0{seed + 1}T12:00:00+00:00",
        recipe=f"{dataset}-{method}",
        training=f"{dataset}-{method}",
        steps=940,
        budget={"max_epochs": 20, "max_steps": -1, "batch_size": 128},
    )


def save(result: store.Result, folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / store.CONFIG).write_text(f"seed_everything: {result.seed}\n")
    (folder / store.CHECKPOINT).write_text("weights")
    result.save(folder)


def write_store(root: Path, seeds: Sequence[int] = SEEDS) -> Path:
    """Write the store; dual_infonce is the better method on both datasets."""
    queries = [("i2t", i, i) for i in range(40)] + [("t2i", i, i // 5) for i in range(200)]
    for d, dataset in enumerate(("flickr30k-mini", "mirflickr-mini")):
        for m, method in enumerate(METHODS):
            for seed in seeds:
                rng = np.random.default_rng([d, m, seed])
                frame = pd.DataFrame(queries, columns=["direction", "query", "image"]).astype({"query": str})
                if d == 0:
                    frame["rank"] = rng.geometric(0.13 - 0.06 * m, len(frame))
                    twins = [("hard", f"{i} {i + 1}", i, 1 + (rng.random() < 0.4 + 0.1 * m)) for i in range(40)]
                    frame = pd.concat([frame, pd.DataFrame(twins, columns=frame.columns)])
                    metrics = caption_metrics(frame)
                else:
                    frame["ap"] = rng.beta(4, 3 + m, len(frame))
                    metrics = label_metrics(frame)
                folder = root / "mini" / dataset / method / f"seed{seed}"
                save(make_result(dataset, method, seed, metrics), folder)
                frame.to_parquet(folder / store.PER_QUERY)
    return root


def change(folder: Path, **fields: Any) -> None:
    """Other fields in a ``result.json``; None removes one."""
    path = folder / store.RESULT
    content = json.loads(path.read_text()) | fields
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))
