"""Writes MirFlickr-25K at its true size as a feature folder: genuine labels and tags, SIMULATED image features.

    python scripts/perf/simulated_mirflickr.py --root DIR [--out data/mirflickr25k-simulated-images]
    itmbench bench mirflickr25k_simulated

DIR holds the label and tag matrices of the hashing papers (.mat files with LAll and YAll). They come without images, so
image features are made up: of an image with labels y they are signal * W y + e, with 24 orthogonal directions W of
length 1 and a normal e of variance 1. So a label moves an image by `signal` standard deviations, and nothing but the
labels is in them. They serve to try the whole path at its true size; figures of them say nothing of photographs.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from itmbench.data.corpus import Features
from itmbench.data.datasets import DCMHMatrices


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", required=True)
    parser.add_argument("--out", default="data/mirflickr25k-simulated-images")
    parser.add_argument("--signal", type=float, default=2.0)
    options = parser.parse_args()
    write(Path(options.root), Path(options.out), signal=options.signal)
    print(f"{options.out}: written; its image features are simulated from the labels")


def write(
    root: Path, out: Path, dim: int = 512, signal: float = 2.0, queries: int = 2_000, train: int = 10_000
) -> None:
    """The feature folder, with the published split: queries, a gallery of the rest, which training is part of."""
    corpus = DCMHMatrices(root, queries=queries, train=train).read()
    assert corpus.labels is not None and isinstance(corpus.texts, Features)
    out.mkdir(parents=True, exist_ok=True)
    np.save(out / "images.npy", simulated(corpus.labels, dim, signal))
    np.save(out / "texts.npy", np.asarray(corpus.texts.array))
    np.save(out / "text_to_image.npy", corpus.text_to_image)
    np.save(out / "labels.npy", corpus.labels)
    val, test = corpus.stages["val"], corpus.stages["test"]
    splits = {"train": corpus.train, "val": val.queries, "query": test.queries, "gallery": test.gallery}
    (out / "splits.json").write_text(json.dumps({name: rows.tolist() for name, rows in splits.items()}))


def simulated(labels: NDArray[np.uint8], dim: int, signal: float) -> NDArray[np.float32]:
    """Image features `[N, dim]` of labels `[N, C]`, the same every time."""
    generator = np.random.default_rng(0)
    directions, _ = np.linalg.qr(generator.standard_normal((dim, labels.shape[1])))
    noise = generator.standard_normal((len(labels), dim), dtype=np.float32)
    return (signal * labels @ directions.T + noise).astype(np.float32)


if __name__ == "__main__":
    main()
