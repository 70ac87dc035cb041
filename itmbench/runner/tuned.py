"""The options that `itmbench tune` chose: one file for each dataset and method, below the results folder."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from itmbench.errors import InputError, in_a_line
from itmbench.files import digest, file_digest, write_atomically
from itmbench.runner.done import known_keys
from itmbench.runner.registry import benchmarks
from itmbench.runner.space import Range
from itmbench.runner.spec import Benchmark, Cell, load_benchmark, load_cells, merge
from itmbench.runner.yaml_files import load_yaml

FOLDER = "tuned"
VERSION = 1
"""Raise it when the search itself changes."""


@dataclass(frozen=True)
class Tuned:
    """The outcome of a finished study."""

    key: str  # of the study (``study_key``)
    trials: Annotated[int, Field(ge=1)]  # how many it had, those that failed included
    chosen: int  # number of the best one; 0 is the method's own config
    objective: float  # of that trial, on validation
    benchmark: str  # that was tuned
    config: dict[str, Any]  # the chosen options, over those of the benchmark
    table: str = ""  # digest of the table of all trials; empty in older files

    __pydantic_config__ = ConfigDict(extra="forbid")

    def save(self, cell: Cell, results: Path) -> None:
        """Write the file, atomically."""
        write_atomically(place(cell, results, ".yaml"), yaml.safe_dump(asdict(self), sort_keys=False))

    @staticmethod
    def load(cell: Cell, results: Path) -> "Tuned | None":
        """Read the file of a dataset and method; None if there is none, an InputError if it cannot be read."""
        path = place(cell, results, ".yaml")
        if not path.exists():
            return None
        content = load_yaml(path)
        try:
            if isinstance(content, dict):
                return TypeAdapter(Tuned).validate_python(content)
            wrong = f"needs a mapping, but holds {content!r}"
        except ValidationError as error:
            wrong = in_a_line(error)
        raise InputError(f"{path}: {wrong}; remove the file and run `itmbench tune` again")


def place(cell: Cell, results: Path, suffix: str) -> Path:
    """A file of the study of a cell's dataset and method."""
    return results / FOLDER / cell.dataset / f"{cell.method}{suffix}"


def is_finished(cell: Cell, results: Path, key: str, trials: int) -> bool:
    """Whether a study had all its trials, and its choice and its table are as they were written."""
    tuned = Tuned.load(cell, results)
    table = place(cell, results, ".csv")
    return (
        tuned is not None
        and tuned.key == key
        and tuned.trials >= trials
        and table.is_file()
        and tuned.table == file_digest(table)
    )


def study_key(default: str, knobs: Mapping[str, Range]) -> str:
    """Hash of everything that decides the trials of a study: the key of the default config, and the space in order."""
    space = [[name, knob.model_dump()] for name, knob in knobs.items()]
    return digest(str(VERSION), default, json.dumps(space))


def cells_to_tune(spec: str | Path, only: str) -> list[tuple[Cell, dict[str, Range]]]:
    """One cell for each method and dataset of a benchmark, with the seed of all trials, and the options to tune.

    Raises:
        InputErrors: as ``load_cells``, or the benchmark does not say what to tune.
    """
    space = load_benchmark(spec).tune
    if space is None:
        raise InputError(f"{spec}: has no tune block, which says what to tune; docs/tuning.md shows one")
    pairs = {(cell.dataset, cell.method): cell for cell in load_cells(spec, only)}
    trial = {"seed_everything": space.seed, "trainer": {"logger": False}}
    return [
        (replace(cell, seed=space.seed, config=merge(cell.config, trial)), space.of(cell.method))
        for cell in pairs.values()
    ]


def is_tuned(cells: Sequence[tuple[Cell, dict[str, Range]]], results: Path, trials: int) -> bool:
    """Whether every study of ``cells_to_tune`` is known to have its trials; False if only planning can tell."""
    keys = known_keys([cell for cell, _ in cells], results)
    if keys is None:
        return False
    return all(
        is_finished(cell, results, study_key(key, knobs), trials)
        for (cell, knobs), key in zip(cells, keys, strict=True)
    )


def _tuner(benchmark: Benchmark, pairs: Sequence[tuple[str, str]]) -> str | None:
    """The packaged benchmark that tunes these datasets and methods, with the same files; None if there is none."""
    for name, path in benchmarks().items():
        other = load_benchmark(path)
        if other.tune and all(
            other.datasets.get(dataset) == benchmark.datasets[dataset]
            and other.methods.get(method) == benchmark.methods[method]
            for dataset, method in pairs
        ):
            return name
    return None


def cells_to_run(spec: str | Path, only: str, results: Path) -> list[Cell]:
    """The cells of a benchmark file (``load_cells``); those of a tuned one have the options chosen for their pair.

    Raises:
        InputErrors: as ``load_cells``, or the chosen options are missing.
    """
    cells = load_cells(spec, only)
    benchmark = load_benchmark(spec)
    if not benchmark.tuned:
        return cells
    chosen = {(cell.dataset, cell.method): Tuned.load(cell, results) for cell in cells}
    tuned = {pair: choice for pair, choice in chosen.items() if choice is not None}
    if len(tuned) < len(chosen):
        missing = [pair for pair in chosen if pair not in tuned]
        known = spec if benchmark.tune else _tuner(benchmark, missing)
        what = known or "FILE"
        which = "" if known else " on a file that names these and has a tune block"
        pairs = ", ".join(f"{method} on {dataset}" for dataset, method in missing)
        raise InputError(
            f"{results / FOLDER}: no chosen options of {pairs}; "
            f"run `itmbench tune {what} --results {results}`{which} first, or copy such choices there (docs/tuning.md)"
        )
    return [
        replace(cell, config=merge(cell.config, choice.config), trials=choice.trials)
        for cell in cells
        for choice in [tuned[cell.dataset, cell.method]]
    ]
