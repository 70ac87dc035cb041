"""Explanations as rows of a picture: which words are shown, and what the note says."""

from pathlib import Path

import numpy as np
import pytest

from itmbench.methods.explanations import ExplainedPair, ExplainedWord
from itmbench.report.explanation import explanation_rows


def pair(count: int, **paths: float) -> ExplainedPair:
    """A pair whose words all count the same, in single precision."""
    share = float(np.float32(1 / count))
    explained = [ExplainedWord(f"w{place}", share, 0.5, 0.0, [0.25] * 4) for place in range(count)]
    return ExplainedPair("a.png", 2, "t", "text", sum(paths.values()), paths, 1.0, explained)


def test_words_of_equal_share_are_all_shown_whatever_the_length_of_the_text() -> None:
    for count in range(1, 50):
        row = explanation_rows([pair(count, words=0.5)], {"a.png": Path("a.png")})[0]
        assert len(row.cells) == 1 + count


@pytest.mark.parametrize(
    ("paths", "says"),
    [
        ({"regions": 0.1234, "words": 0.4321}, "score 0.555 = regions 0.123 + words 0.432"),
        ({"global": 12.34, "local": -0.56}, "score 11.8 = global 12.3 + local -0.6"),
    ],
)
def test_the_note_names_the_last_path_and_has_enough_digits(paths: dict[str, float], says: str) -> None:
    note = explanation_rows([pair(3, **paths)], {})[0].note
    assert f"a.png: {says}. " in note and f"share of {[*paths][-1]}," in note
