"""A folder of one's own features, small enough to train on in seconds: items of a few classes, seen from two sides."""

import json
from pathlib import Path
from typing import Any

import numpy as np

ITEMS, TRAIN = 60, 40


def write_features(
    root: Path,
    tokens: bool = False,
    labels: bool = True,
    captions: int = 1,
    dims: tuple[int, int] = (7, 5),
    items: int = ITEMS,
) -> Path:
    """``images.npy`` and ``texts.npy``: two thirds to train on, of which a tenth validates, and the rest to test.

    Args:
        root: the folder, made here.
        tokens: give three regions an image and four words a text, one to four of them real.
        labels: give one of four classes to each item.
        captions: texts of an image.
        dims: widths of image and text features.
        items: images in all.
    """
    root.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(0)
    classes, seen = np.arange(items) % 4, generator.normal(size=(items, 3))
    owner = np.repeat(np.arange(items), captions)
    for what, rows, dim, length in (("image", np.arange(items), dims[0], 3), ("text", owner, dims[1], 4)):
        centres, view = generator.normal(size=(4, dim)), generator.normal(size=(3, dim))
        shape = (len(rows), length, dim) if tokens else (len(rows), dim)
        exact = centres[classes[rows]] + seen[rows] @ view
        noisy = (exact[:, None] if tokens else exact) + 0.3 * generator.normal(size=shape)
        np.save(root / f"{what}s.npy", noisy.astype(np.float32))
    if tokens:
        np.save(root / "text_mask.npy", np.arange(4) <= (np.arange(len(owner)) % 4)[:, None])
    np.save(root / "text_to_image.npy", owner)
    if labels:
        np.save(root / "labels.npy", classes)
    train = items * TRAIN // ITEMS
    test = list(range(train, items))
    write_splits(root, train=list(range(train)), query=test, gallery=test)
    return root


def write_splits(root: Path, **splits: Any) -> None:
    (root / "splits.json").write_text(json.dumps(splits))
