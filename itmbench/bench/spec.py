"""A benchmark file -> cells: one method on one dataset with one seed, each a LightningCLI config."""

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from itmbench.errors import InputError, InputErrors

Config = dict[str, Any]
KEYS = {"name", "datasets", "methods", "seeds", "config", "overrides", "leave_out"}


@dataclass(frozen=True)
class Cell:
    """One run: its place in the benchmark and the config that makes it."""

    benchmark: str
    dataset: str
    method: str
    seed: int
    config: Config

    @property
    def folder(self) -> Path:
        """Where its result goes, below the results folder."""
        return Path(self.benchmark, self.dataset, self.method, f"seed{self.seed}")

    def __str__(self) -> str:
        return f"{self.method} on {self.dataset}, seed {self.seed}"


def plan(path: str | Path, only: str = "") -> list[Cell]:
    """Cells of a benchmark file, dataset by dataset.

    The file names ``datasets`` and ``methods`` (name: config file or list of them, relative to the benchmark file),
    ``seeds``, a shared ``config``, and ``overrides``: a list of ``{dataset: …, method: …, config: …}`` that apply to
    the cells they match. Later configs win: dataset, method, shared, overrides in order, seed. ``leave_out`` lists
    ``{dataset: …, method: …}`` that are not defined, or not wanted.

    Args:
        path: the benchmark file.
        only: keep cells that match all of ``key=value`` pairs, comma-separated; keys are dataset, method and seed.

    Raises:
        InputErrors: files are missing or malformed, keys or names are unknown; a line for each.
        InputError: nothing is left.
    """
    path = Path(path)
    spec = _mapping(path, load_yaml(path))
    if wrong := [*_wrong_keys(path, spec)]:
        raise InputErrors(wrong)
    wrong += [*_wrong_overrides(path, spec), *_wrong_pairs(path, spec)]
    loaded: dict[str, list[Config]] = {}
    for name in [*spec["datasets"].values(), *spec["methods"].values()]:
        try:
            loaded[str(name)] = list(_load(path, name))
        except InputError as error:
            wrong.append(str(error))
    if wrong:
        raise InputErrors(list(dict.fromkeys(wrong)))
    cells = []
    for dataset, dataset_files in spec["datasets"].items():
        for method, method_files in spec["methods"].items():
            if any(_matches(pair, dataset, method) for pair in spec.get("leave_out") or []):
                continue
            matching = [o["config"] for o in spec.get("overrides") or [] if _matches(o, dataset, method)]
            parts = [*loaded[str(dataset_files)], *loaded[str(method_files)], spec.get("config") or {}, *matching]
            for seed in spec.get("seeds", [0]):
                config: Config = {}
                for part in [*parts, {"seed_everything": seed}]:
                    config = merge(config, part)
                cells.append(Cell(spec.get("name", path.stem), dataset, method, int(seed), config))
    return _filter(cells, only)


def merge(base: Config, update: Mapping[str, Any]) -> Config:
    """``base`` with the values of ``update``, mappings merged key by key; a class that changes starts afresh."""
    result = copy.deepcopy(base)
    for key, value in update.items():
        old = result.get(key)
        if not isinstance(value, Mapping) or not isinstance(old, dict):
            result[key] = copy.deepcopy(value)
        elif "class_path" in value and value["class_path"] != old.get("class_path", value["class_path"]):
            result[key] = copy.deepcopy(dict(value))
        else:
            result[key] = merge(old, value)
    return result


def load_yaml(path: Path) -> Any:
    """The content of a YAML file.

    Raises:
        InputError: there is no such file, or it is not YAML; with the line.
    """
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        raise InputError(f"{where}: not YAML ({getattr(error, 'problem', error)})") from None


def _mapping(path: Path, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict) or not value:
        raise InputError(f"{path}: a mapping with at least one entry is needed where {value!r} stands")
    return value


def _load(spec: Path, files: str | list[str]) -> Iterator[Config]:
    for name in [files] if isinstance(files, str) else files:
        yield _mapping(spec.parent / name, load_yaml(spec.parent / name))


def _wrong_keys(path: Path, spec: Config) -> Iterator[str]:
    """What is wrong with a benchmark file by itself, a line each."""
    for key in sorted({str(key) for key in spec} - KEYS):
        yield f"{path}: unknown key {key}; a benchmark has the keys {', '.join(sorted(KEYS))}"
    for key in ("datasets", "methods"):
        if key not in spec:
            yield f"{path}: no {key}; a benchmark has the keys {', '.join(sorted(KEYS))}"
        elif not isinstance(spec[key], dict) or not spec[key]:
            yield f"{path}: a mapping with at least one entry is needed where {spec[key]!r} stands"
    seeds = spec.get("seeds", [0])
    if not isinstance(seeds, list) or not seeds or not all(type(seed) is int and seed >= 0 for seed in seeds):
        yield f"{path}: seeds is {seeds!r}; give a list of whole numbers such as [0, 1, 2]"


def _wrong_overrides(path: Path, spec: Config) -> Iterator[str]:
    """What is wrong with the overrides of a benchmark file, a line each."""
    for override in spec.get("overrides") or []:
        wrong = [f"does not know {each}" for each in _unknown(spec, override, {"config"})]
        for each in [*wrong, *(["has no config"] if "config" not in override else [])]:
            yield f"{path}: an override {each}; it takes a dataset and a method of this file, and a config"


def _wrong_pairs(path: Path, spec: Config) -> Iterator[str]:
    """What is wrong with the pairs that a benchmark file leaves out, a line each."""
    for pair in spec.get("leave_out") or []:
        wrong = [f"does not know {each}" for each in _unknown(spec, pair, set())]
        for each in wrong or ([] if pair else ["is empty"]):
            yield f"{path}: a pair to leave out {each}; it takes a dataset, a method of this file, or both"


def _unknown(spec: Config, choice: Config, also: set[str]) -> list[str]:
    """What a choice of cells, and other keys, names that is not in the benchmark file."""
    unknown = set(choice) - {"dataset", "method"} - also
    for key in ("dataset", "method"):
        if key in choice and choice[key] not in spec[f"{key}s"]:
            unknown.add(f"{key}: {choice[key]}")
    return sorted(unknown)


def _matches(choice: Config, dataset: str, method: str) -> bool:
    return choice.get("dataset", dataset) == dataset and choice.get("method", method) == method


def _filter(cells: list[Cell], only: str) -> list[Cell]:
    wanted = [pair.partition("=") for pair in only.split(",") if pair]
    for key, _, value in wanted:
        if key not in ("dataset", "method", "seed"):
            raise InputError(f"--only {key}={value}: {key} is not dataset, method or seed")
        if value not in (known := sorted({str(getattr(cell, key)) for cell in cells})):
            raise InputError(f"--only {key}={value}: this benchmark has no such {key}; choose of {', '.join(known)}")
    kept = [cell for cell in cells if all(str(getattr(cell, key)) == value for key, _, value in wanted)]
    if not kept:
        raise InputError(f"--only {only}: no cell is left")
    return kept
