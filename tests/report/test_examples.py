import json
import re
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from itmbench.errors import InputError
from itmbench.evaluation.examples import Answer, Example, Examples
from itmbench.report.examples import read_examples
from itmbench.store import EXAMPLES

ANSWER = Answer("t0", "i0", "a dog", 0.5, "own", False, [])
EXAMPLES_ = Examples("rank", "", {"i0": ("0.jpg", 7)}, [Example("i2t", "i0", "i0", "", [], 1, True, [ANSWER])])


def test_what_was_written_is_read_and_what_is_missing_is_none(tmp_path: Path) -> None:
    assert read_examples(tmp_path) is None
    (tmp_path / EXAMPLES).write_text(json.dumps(asdict(EXAMPLES_)))
    assert read_examples(tmp_path) == EXAMPLES_


def _change(key: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda content: content.__setitem__(key, value)


@pytest.mark.parametrize(
    "damage",
    [
        _change("measure", "colour"),
        _change("queries", "none"),
        _change("files", {"i0": "0.jpg"}),
        lambda content: content["queries"][0]["results"][0].update(score="high"),
        lambda content: content["queries"][0]["results"][0].update(score=float("nan")),
        lambda content: content["queries"][0].pop("id"),
    ],
)
def test_a_damaged_file_is_one_line(tmp_path: Path, damage: Callable[[dict[str, Any]], None]) -> None:
    content = asdict(EXAMPLES_)
    damage(content)
    (tmp_path / EXAMPLES).write_text(json.dumps(content))
    _refused(tmp_path)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[" * 100_000])
def test_a_file_that_is_no_json_is_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / EXAMPLES).write_bytes(content)
    _refused(tmp_path)


def test_a_folder_in_its_place_is_one_line(tmp_path: Path) -> None:
    (tmp_path / EXAMPLES).mkdir()
    _refused(tmp_path)


def _refused(folder: Path) -> None:
    with pytest.raises(InputError, match=f"^{re.escape(str(folder / EXAMPLES))}: [^\n]*run that cell again$"):
        read_examples(folder)
