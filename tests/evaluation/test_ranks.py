"""Ranks share an evaluation: the same numbers to the last digit on each, for a part of the work."""

from typing import Any

import pytest
import torch
from evaluation import ranks_run

from itmbench.evaluation.ranks import by_rank


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[int, list[dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("ranks")
    ranks_run.run(folder)
    return {
        count: [torch.load(folder / f"{count}.{rank}.pt", weights_only=True) for rank in range(count)]
        for count in (1, 2, 3)
    }


@pytest.mark.parametrize("count", [2, 3])
def test_every_rank_finds_what_one_process_finds(results: dict[int, list[dict[str, Any]]], count: int) -> None:
    [alone] = results[1]
    for rank in results[count]:
        for name in alone.keys() - {"refused"}:
            assert rank[name]["metrics"] == alone[name]["metrics"], name
            assert rank[name]["per_query"] == alone[name]["per_query"], name


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("name", ["captions", "folds", "shortlist", "labels", "label shortlist"])
def test_ranks_take_equal_parts_of_the_work(results: dict[int, list[dict[str, Any]]], count: int, name: str) -> None:
    whole = results[1][0][f"{name}/True"]["pairs"]
    parts = [rank[f"{name}/True"]["pairs"] for rank in results[count]]
    assert max(parts) < 1.4 * whole / count and sum(parts) < 1.2 * whole


def test_an_error_of_one_rank_is_that_of_all(results: dict[int, list[dict[str, Any]]]) -> None:
    messages = {rank["refused"] for ranks in results.values() for rank in ranks}
    assert len(messages) == 1 and "scores of image" in messages.pop()


def test_nothing_is_shared_by_default() -> None:
    assert by_rank(list, 5) == [[0, 1, 2, 3, 4]]
