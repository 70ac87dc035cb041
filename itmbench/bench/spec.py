"""A benchmark file -> cells: one method on one dataset with one seed, each a LightningCLI config."""

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from itmbench.errors import InputError

Config = dict[str, Any]
KEYS = {"name", "datasets", "methods", "seeds", "config", "overrides"}


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
    the cells they match. Later configs win: dataset, method, shared, overrides in order, seed.

    Args:
        path: the benchmark file.
        only: keep cells that match all of ``key=value`` pairs, comma-separated; keys are dataset, method and seed.

    Raises:
        InputError: a file is missing or malformed, a key or a name is unknown, or nothing is left.
    """
    path = Path(path)
    spec = _mapping(path, load_yaml(path))
    unknown, missing = set(spec) - KEYS, {"datasets", "methods"} - set(spec)
    if unknown or missing:
        what = f"unknown key {sorted(unknown)[0]}" if unknown else f"no {sorted(missing)[0]}"
        raise InputError(f"{path}: {what}; a benchmark has the keys {', '.join(sorted(KEYS))}")
    overrides = list(_overrides(path, spec))
    cells = []
    for dataset, dataset_files in _mapping(path, spec["datasets"]).items():
        for method, method_files in _mapping(path, spec["methods"]).items():
            matching = [
                o["config"]
                for o in overrides
                if o.get("dataset", dataset) == dataset and o.get("method", method) == method
            ]
            parts = [*_load(path, dataset_files), *_load(path, method_files), spec.get("config") or {}, *matching]
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


def _overrides(path: Path, spec: Config) -> Iterator[Config]:
    for override in spec.get("overrides") or []:
        unknown = set(override) - {"dataset", "method", "config"}
        for key in ("dataset", "method"):
            if key in override and override[key] not in spec[f"{key}s"]:
                unknown.add(f"{key}: {override[key]}")
        if unknown or "config" not in override:
            wrong = f"does not know {sorted(unknown)[0]}" if unknown else "has no config"
            raise InputError(f"{path}: an override {wrong}; it takes a dataset and a method of this file, and a config")
        yield override


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
