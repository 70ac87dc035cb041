"""A store of results whose cells hold example queries with pictures, for the page's gallery."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from results_store import METHODS, SEEDS, write_store

from itmbench.evaluation.answers import Answer, Example, Examples, Side
from itmbench.methods.explanations import (
    ExplainedItem,
    ExplainedLabel,
    ExplainedPair,
    ExplainedQuery,
    ExplainedWord,
    Explanations,
    Part,
    Seen,
)
from itmbench.store import EXAMPLES, EXPLANATIONS, PER_QUERY

HOSTILE = "</script><script>hacked = 1</script> <img src=x onerror='hacked = 1'> & <b>"
"""The first text of image 0."""
SAMPLED = {"i2t": (0, 3, 8), "t2i": (2, 17, 40, 41)}
"""Queries of each direction that were drawn."""
PICTURES = 12


def _pair(image: int, text: int, *words: str) -> ExplainedPair:
    """A pair of words that each find one region of four more than the others, the first word most."""
    explained = [
        ExplainedWord(word, 0.5 if place == 0 else 0.5 / (len(words) - 1), 0.9, 0.1, [0.1, 0.1, 0.1, 0.1])
        for place, word in enumerate(words)
    ]
    for place, word in enumerate(explained):
        word.regions[place % 4] = 0.6
    return ExplainedPair(
        str(image), 2, str(text), " ".join(words), 5.0 - text, {"b": 6.0 - text, "a": -1.0}, 3.0, explained
    )


_SEEN = [Seen("7", 0.6, "seen text", ["red", "</script>"]), Seen("8", 0.3, None, [])]
_LABELS = [
    ExplainedLabel("red", 0.9, 0.8, [Part(2, 0.7), Part(1, 0.2)], [0.05, 0.2, 0.7, 0.05], _SEEN[:1]),
    ExplainedLabel("blue", 0.2, 0.1, [Part(0, 0.5)], [0.5, 0.2, 0.2, 0.1], []),
]
_WORDS = [ExplainedLabel("red", 0.9, 0.8, [Part("scarlet", 0.7)], [], [Seen("t7", 0.6, "a scarlet one", ["red"])])]
EXPLAINED = {
    "dual_infonce": [
        ExplainedQuery("i2t", "0", [_pair(0, 0, HOSTILE, "red", "square"), _pair(0, 5, "a", "red", "one")], []),
        ExplainedQuery("t2i", "2", [_pair(0, 2, "red", "square"), _pair(1, 2, "red", "square")], []),
    ],
    "dual_triplet": [
        ExplainedQuery(
            "i2t",
            "3",
            [],
            [
                ExplainedItem("image", "3", "its text", 2, _SEEN, _LABELS),
                ExplainedItem("text", "20", HOSTILE, None, [], _WORDS),
            ],
        ),
    ],
}
"""Of one method words that find regions, of the other what items attach to."""


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
            explained = Explanations(str(root / "pictures"), files, EXPLAINED[method])
            (cell / EXPLANATIONS).write_text(json.dumps(asdict(explained)))
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
