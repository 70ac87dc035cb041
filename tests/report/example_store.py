"""A store of results whose cells hold example queries with pictures, for the page's gallery."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from results_store import METHODS, SEEDS, write_store

from itmbench.evaluation.examples import Answer, Example, Examples, Side
from itmbench.store import EXAMPLES, PER_QUERY

HOSTILE = "</script><script>hacked = 1</script> <img src=x onerror='hacked = 1'> & <b>"
"""The first text of image 0."""
SAMPLED = {"i2t": (0, 3, 8), "t2i": (2, 17, 40, 41)}
"""Queries of each direction that were drawn."""
PICTURES = 12


def write_examples(root: Path) -> Path:
    """``write_store`` with examples of captions, right where the ranks say so; the next image is a near twin."""
    folder = write_store(root / "results")
    (root / "pictures").mkdir()
    for number in range(PICTURES):
        picture = Image.fromarray(np.full((60, 80, 3), (20 * number, 90, 200 - 10 * number), np.uint8))
        picture.save(root / "pictures" / f"{number}.png")
    files = {str(n): (f"{n}.png", (root / "pictures" / f"{n}.png").stat().st_size) for n in range(PICTURES)}
    for method in METHODS:
        for seed in SEEDS:
            cell = folder / "mini" / "flickr30k-mini" / method / f"seed{seed}"
            ranks = pd.read_parquet(cell / PER_QUERY).set_index(["direction", "query"])["rank"]
            queries = []
            for side in ("i2t", "t2i"):
                worst = int(ranks[side].drop([str(number) for number in SAMPLED[side]]).idxmax())
                for number in (*SAMPLED[side], worst):
                    rank = int(ranks[side][str(number)])
                    queries.append(_example(side, number, rank, number != worst))
            content = Examples("rank", str(root / "pictures"), files, queries)
            (cell / EXAMPLES).write_text(json.dumps(asdict(content)))
    return folder


def text_of(image: int) -> str:
    return HOSTILE if image == 0 else f"a picture of number {image}"


def _example(side: Side, number: int, rank: int, sampled: bool) -> Example:
    image = number if side == "i2t" else number // 5
    results = []
    for place in range(1, 6):
        other = image if place == rank else (image + place) % PICTURES
        id_ = f"{5 * other}" if side == "i2t" else f"{other}"
        right, twin = ("own" if place == rank else ""), other == image + 1
        results.append(Answer(id_, str(other), text_of(other), 1 / place, right, twin, []))  # type: ignore[arg-type]
    return Example(side, str(number), str(image), text_of(image), [], rank, sampled, results)
