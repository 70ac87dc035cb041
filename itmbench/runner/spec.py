"""A benchmark file -> cells: one method on one dataset with one seed, each a LightningCLI config."""

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from itmbench.errors import InputError, InputErrors
from itmbench.runner.registry import find_benchmark

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
        path: the benchmark file, or the name of a packaged one.
        only: keep cells that match all of ``key=value`` pairs, comma-separated; keys are dataset, method and seed.

    Raises:
        InputErrors: files are missing or malformed, keys or names are unknown; a line for each.
        InputError: nothing is left.
    """
    path = find_benchmark(path)
    spec = _mapping(path, load_yaml(path))
    if wrong := [*_wrong_keys(path, spec)]:
        raise InputErrors(wrong)
    for key in ("overrides", "leave_out"):
        wrong += _wrong_choices(path, spec, key)
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
    if not cells:
        raise InputError(f"{path}: leave_out leaves nothing to run")
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
        loader = yaml.SafeLoader(path.read_text(encoding="utf-8"))
        node = loader.get_single_node()
        if node is None:
            return None
        if twice := _key_given_twice(node):
            raise InputError(f"{path}:{twice.start_mark.line + 1}: {twice.value} is given twice; the last would count")
        return loader.construct_document(node)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); name a YAML file") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        problem = " ".join(str(getattr(error, "problem", error)).split())
        raise InputError(f"{where}: not YAML ({problem})") from None


def _key_given_twice(node: yaml.Node) -> yaml.ScalarNode | None:
    """A key that stands in the same mapping before, somewhere in a document."""
    seen, below = set[tuple[str, str]](), list[yaml.Node]()
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode):
                if (key.tag, key.value) in seen:
                    return key
                seen.add((key.tag, key.value))
            below.append(value)
    elif isinstance(node, yaml.SequenceNode):
        below = node.value
    return next((found for each in below if (found := _key_given_twice(each))), None)


def _mapping(path: Path, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict) or not value:
        raise InputError(f"{path}: a mapping with at least one entry is needed where {value!r} stands")
    return value


def _load(spec: Path, files: str | list[str]) -> Iterator[Config]:
    for name in [files] if isinstance(files, str) else files:
        yield _mapping(spec.parent / name, load_yaml(spec.parent / name))


def _wrong_keys(path: Path, spec: Config) -> Iterator[str]:
    """What is wrong with the parts of a benchmark file by themselves, a line each."""
    for key in sorted({str(key) for key in spec} - KEYS):
        yield f"{path}: unknown key {key}; a benchmark has the keys {', '.join(sorted(KEYS))}"
    for key in ("datasets", "methods"):
        if key not in spec:
            yield f"{path}: no {key}; a benchmark has the keys {', '.join(sorted(KEYS))}"
        elif not isinstance(spec[key], dict) or not spec[key]:
            yield f"{path}: a mapping with at least one entry is needed where {spec[key]!r} stands"
    named = [each for key in ("datasets", "methods") if isinstance(spec.get(key), dict) for each in spec[key].items()]
    for name in (spec.get("name", path.stem), *(name for name, _ in named)):
        if not isinstance(name, str) or Path(name).name != name or name.startswith(".") or not name.isprintable():
            yield f"{path}: {name!r} names no folder of results; give text without a / and without a . at its start"
    for name, files in named:
        listed = [files] if isinstance(files, str) else files
        if not isinstance(listed, list) or not listed or not all(isinstance(each, str) for each in listed):
            yield f"{path}: {name}: {files!r} is no config file and no list of config files"
    seeds = spec.get("seeds", [0])
    if not isinstance(seeds, list) or not seeds or not all(type(seed) is int and 0 <= seed < 2**32 for seed in seeds):
        yield f"{path}: seeds is {seeds!r}; give a list of whole numbers such as [0, 1, 2]"
    elif len(set(seeds)) < len(seeds):
        yield f"{path}: seeds is {seeds!r}; give each once"
    if not isinstance(spec.get("config") or {}, dict):
        yield f"{path}: config is {spec['config']!r}; give a mapping such as a config file of `itmbench fit` holds"
    elif "seed_everything" in (spec.get("config") or {}):
        yield f"{path}: config has seed_everything; give seeds instead"
    for key in ("overrides", "leave_out"):
        value = spec.get(key) or []
        if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
            yield f"{path}: {key} is {value!r}; give a list of mappings, such as - {{method: …, dataset: …}}"


def _wrong_choices(path: Path, spec: Config, key: str) -> Iterator[str]:
    """What is wrong with the overrides of a benchmark file, or with the pairs that it leaves out, a line each."""
    also, what = {
        "overrides": ({"config"}, "an override {}; it takes a dataset and a method of this file, and a config"),
        "leave_out": (set[str](), "a pair to leave out {}; it takes a dataset, a method of this file, or both"),
    }[key]
    for choice in spec.get(key) or []:
        wrong = [f"does not know {each}" for each in _unknown(spec, choice, also)]
        if also and not isinstance(choice.get("config"), dict):
            wrong.append("has no config")
        for each in wrong or ([] if choice else ["is empty"]):
            yield f"{path}: {what.format(each)}"


def _unknown(spec: Config, choice: Config, also: set[str]) -> list[str]:
    """What a choice of cells, and other keys, names that is not in the benchmark file."""
    unknown = {str(key) for key in choice} - {"dataset", "method"} - also
    for key in ("dataset", "method"):
        if key in choice and choice[key] not in [*spec[f"{key}s"]]:
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
