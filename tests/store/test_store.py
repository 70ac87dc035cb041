"""Results on disk: cells are found, removed and merged, and nothing else is."""

import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from results_store import change, write_store

from itmbench import store
from itmbench.errors import InputError

CELL = Path("mini", "flickr30k-mini", "dual_infonce", "seed0")


def files(root: Path) -> dict[str, bytes]:
    """All files below a folder but those in ``.running``."""
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and store.RUNNING not in path.parts
    }


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, Path]:
    """Two equal stores."""
    return write_store(tmp_path / "here", seeds=(0, 1)), write_store(tmp_path / "there", seeds=(0, 1))


def test_a_cell_is_found_by_the_folder_that_is_listed_or_by_its_path(
    two: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    here, _ = two
    monkeypatch.chdir(here.parent)
    for name in (str(CELL), str(here / CELL), f"here/{CELL}", f"./{CELL}/"):
        assert store.cell_folder("here", name) == here / CELL


def test_nothing_but_a_cell_of_these_results_is_removed(two: tuple[Path, Path]) -> None:
    here, there = two
    (here / "link").symlink_to(there / CELL)
    running = here / store.RUNNING / CELL
    shutil.copytree(here / CELL, running)
    before = files(here), files(there)
    outside = [
        there / CELL,
        Path("..", "there") / CELL,
        CELL / ".." / ".." / ".." / ".." / ".." / "there" / CELL,
    ]
    for name in [*outside, ".", "", "/", CELL.parent, "mini", Path(store.RUNNING) / CELL, CELL / store.RESULT, "none"]:
        with pytest.raises(InputError, match="no such cell"):
            store.remove(here, [str(name)])
    assert (files(here), files(there)) == before and running.exists()


def test_a_removed_cell_leaves_nothing_behind(two: tuple[Path, Path]) -> None:
    here, there = two
    for seed in (0, 1):
        store.remove(here, [str(CELL.with_name(f"seed{seed}"))])
    assert not (here / CELL.parent).exists() and (here / "mini" / "mirflickr-mini").exists()
    gone = f"{CELL.parent}{os.sep}"
    assert files(here) == {name: content for name, content in files(there).items() if not name.startswith(gone)}
    assert not list((here / store.RUNNING).iterdir())


def test_stores_merge_without_loss(two: tuple[Path, Path]) -> None:
    here, there = two
    union = files(here)
    for root, seed in ((here, 0), (there, 1)):
        for folder in root.rglob(f"seed{seed}"):
            shutil.rmtree(folder)
    shutil.copytree(there / CELL.with_name("seed0"), there / store.RUNNING / "half")
    assert not files(here).keys() & files(there).keys()
    merged = store.merge(here, there)
    assert files(here) == union
    assert (len(merged.copied), merged.equal, merged.conflicts) == (4, [], {})
    assert not list((here / store.RUNNING).iterdir())
    again = store.merge(here, there)
    assert (again.copied, len(again.equal), again.conflicts) == ([], 4, {})
    assert store.merge(here.with_name("new"), here).copied and files(here.with_name("new")) == union


def test_conflicts_are_named_and_nothing_is_overwritten(two: tuple[Path, Path]) -> None:
    here, there = two
    kinds = sorted({folder.parent for folder, _ in store.results(there)})
    key, metric, query, lost = (folder / "seed0" for folder in kinds)
    change(key, key="another")
    change(key.with_name("seed1"), seconds=1.0, finished="2027-01-01T00:00:00+00:00", hardware={"cpu": "another"})
    result = store.Result.load(metric)
    replace(result, metrics=result.metrics | {"chance/rSum": 1.0}).save(metric)
    queries = pd.read_parquet(query / store.PER_QUERY)
    queries.loc[0, "ap"] = 0.123
    queries.to_parquet(query / store.PER_QUERY)
    (lost / store.PER_QUERY).unlink()
    blocked = CELL.parent.with_name("other") / "seed0"
    shutil.copytree(there / CELL.with_name("seed1"), there / blocked)
    (here / blocked).mkdir(parents=True)
    before = files(here)
    merged = store.merge(here, there)
    assert files(here) == before
    other = "and metrics in both, other results of single queries"
    assert {str(place): difference for place, difference in merged.conflicts.items()} == {
        "mini/flickr30k-mini/dual_infonce/seed0": "key flickr30k-mini-dual_infonce-0 here, another there",
        "mini/flickr30k-mini/dual_triplet/seed0": "key flickr30k-mini-dual_triplet-0 in both, other metrics",
        "mini/mirflickr-mini/dual_infonce/seed0": f"key mirflickr-mini-dual_infonce-0 {other}",
        "mini/mirflickr-mini/dual_triplet/seed0": f"key mirflickr-mini-dual_triplet-0 {other}",
        str(blocked): "something else lies there",
    }
    assert len(merged.equal) == 4 and not merged.copied


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"hardware": {"cpu_capability": "AVX512"}}, "cpu_capability AVX2 here, AVX512 there"),
        ({"hardware": {"threads": 2}}, "threads 1 here, 2 there"),
        ({"hardware": {"gpu": "NVIDIA H100"}}, "gpu None here, NVIDIA H100 there"),
        ({"versions": {"torch": "2.11.0"}}, "torch 2.10.0 here, 2.11.0 there"),
        ({"hardware": {"cores": 64, "platform": "another"}, "versions": {"itmbench": "0.2"}}, ""),
        ({}, ""),
    ],
)
def test_other_numbers_from_another_environment_are_a_rerun_and_no_conflict(
    two: tuple[Path, Path], changes: dict[str, Any], words: str
) -> None:
    here, there = two
    recorded = {"cpu": "A", "cpu_capability": "AVX2", "threads": 1, "gpu": None, "cores": 2, "platform": "Linux"}
    for root in two:
        change(root / CELL, hardware=recorded)
    result = store.Result.load(there / CELL)
    hardware, versions = (
        {**of, **changes.get(name, {})} for name, of in (("hardware", result.hardware), ("versions", result.versions))
    )
    same = replace(result, hardware=hardware, versions=versions)
    same.save(there / CELL)
    assert CELL in store.merge(here, there).equal
    replace(same, metrics=result.metrics | {"chance/rSum": 1.0}).save(there / CELL)
    before, merged = files(here), store.merge(here, there)
    assert files(here) == before and len(merged.equal) == 7
    assert merged.reruns == ({CELL: words} if words else {})
    assert list(merged.conflicts) == ([] if words else [CELL])


def test_a_merge_that_is_interrupted_leaves_whole_cells_only(
    two: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = two
    shutil.rmtree(here)
    copy, copied = shutil.copy2, list[Path]()

    def fails_in_the_third_cell(source: Path, target: Path) -> None:
        copied.append(source)
        if len(copied) == 3 * 4 - 1:  # a cell has four files
            raise KeyboardInterrupt
        copy(source, target)

    monkeypatch.setattr(shutil, "copy2", fails_in_the_third_cell)
    with pytest.raises(KeyboardInterrupt):
        store.merge(here, there)
    monkeypatch.undo()
    assert len(files(here)) == 2 * 4
    assert len(list(store.results(here))) == 2
    assert len(store.merge(here, there).copied) == 6 and files(here) == files(there)


def test_what_cannot_be_merged_is_told(two: tuple[Path, Path], tmp_path: Path) -> None:
    here, there = two
    for other in (here, here / "mini", here.parent):
        with pytest.raises(InputError, match="two separate folders"):
            store.merge(here, other)
    with pytest.raises(InputError, match="is a cell"):
        store.merge(here, there / CELL)
    with pytest.raises(InputError, match="no such results folder"):
        store.merge(here, tmp_path / "none")
    change(there / CELL, seed="zero")
    before = files(here)
    with pytest.raises(InputError, match="seed: Input"):
        store.merge(here, there)
    assert files(here) == before
    (there / "file").touch()
    (there / "nothing").symlink_to(there / "gone")
    for name in ("file", "nothing"):
        with pytest.raises(InputError, match="no such results folder"):
            store.merge(here, there / name)
    with pytest.raises(InputError, match="cannot be a results folder"):
        store.merge(here / CELL / store.CONFIG, write_store(tmp_path / "sound", seeds=(0,)))


def _empty(cell: Path) -> None:
    (cell / store.PER_QUERY).write_bytes(b"PAR1")


def _link(cell: Path) -> None:
    (cell / store.CHECKPOINT).unlink()
    (cell / store.CHECKPOINT).symlink_to(__file__)


def _copy_of_seed_1(cell: Path) -> None:
    shutil.rmtree(cell)
    shutil.copytree(cell.with_name("seed1"), cell)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda cell: (cell / store.PER_QUERY).unlink(), "no per_query.parquet"),
        (lambda cell: (cell / store.CHECKPOINT).unlink(), "no best.ckpt"),
        (_empty, "per_query.parquet cannot be read"),
        (_link, "best.ckpt is a link to nothing, or to a file outside"),
        (lambda cell: (cell / "more").symlink_to("gone"), "more is a link to nothing"),
        (lambda cell: (cell / "more").symlink_to("/etc"), "more is a link to nothing, or to a file outside"),
        (lambda cell: os.truncate(cell / store.PER_QUERY, 100), "per_query.parquet cannot be read"),
        (_copy_of_seed_1, "it is the result of flickr30k-mini/dual_infonce/seed1"),
    ],
)
def test_unsound_cells_are_not_added(two: tuple[Path, Path], damage: Any, words: str) -> None:
    here, there = two
    shutil.rmtree(here / CELL)
    damage(there / CELL)
    before, merged = files(here), store.merge(here, there)
    assert list(merged.refused) == [CELL] and merged.refused[CELL].startswith(words)
    assert files(here) == before and not merged.copied and len(merged.equal) == 7


def test_what_lies_in_the_way_is_a_conflict(two: tuple[Path, Path]) -> None:
    here, there = two
    shutil.rmtree(here / CELL)
    (here / CELL).symlink_to("gone")
    (here / CELL.with_name("seed1") / store.PER_QUERY).write_bytes(b"PAR1")
    shutil.rmtree(here / "mini" / "mirflickr-mini")
    (here / "mini" / "mirflickr-mini").touch()
    before, merged = files(here), store.merge(here, there)
    assert files(here) == before and len(merged.equal) == 2 and not merged.copied and (here / CELL).is_symlink()
    assert {str(place): words for place, words in merged.conflicts.items()} == {
        str(CELL): "something else lies there",
        str(CELL.with_name("seed1")): "per_query.parquet here cannot be read",
        **{
            f"mini/mirflickr-mini/{method}/seed{seed}": "a file lies where its folder would"
            for method in ("dual_infonce", "dual_triplet")
            for seed in (0, 1)
        },
    }


def test_a_copy_of_a_cell_does_not_count_as_another_seed(two: tuple[Path, Path]) -> None:
    here, _ = two
    copy = here / CELL.with_name("seed7")
    shutil.copytree(here / CELL, copy)
    with pytest.raises(InputError, match=f"{here / CELL} and {copy}: the same result"):
        store.load_results(here)
