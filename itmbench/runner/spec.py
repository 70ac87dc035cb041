"""A benchmark file -> cells: one method on one dataset with one seed, each a LightningCLI config."""

import copy
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from itmbench.errors import InputError, InputErrors, choice
from itmbench.runner.registry import find_benchmark, find_config_file
from itmbench.runner.space import Range, Space
from itmbench.runner.yaml_files import load_yaml
from itmbench.store.selection import select

Config = dict[str, Any]


@dataclass(frozen=True)
class Cell:
    """One run: its place in the benchmark, its config, and the number of trials that tuned it."""

    benchmark: str
    dataset: str
    method: str
    seed: int
    config: Config
    trials: int = 0

    @property
    def folder(self) -> Path:
        """Where its result goes, below the results folder."""
        return Path(self.benchmark, self.dataset, self.method, f"seed{self.seed}")

    def __str__(self) -> str:
        return f"{self.method} on {self.dataset}, seed {self.seed}"


def _names_a_folder(name: str) -> str:
    odd = Path(name).name != name or not name or name[0] in ".-" or "," in name or not name.isprintable()
    if odd or len(name) > 100:
        raise ValueError(
            "cannot name a folder of results; give up to 100 letters, without / and commas, and no . or - at the start"
        )
    if name != unicodedata.normalize("NFC", name.strip()) or len(name.encode()) > 200:
        raise ValueError(
            "looks like another name, or is too long in UTF-8; leave out spaces at its ends, compose accents"
        )
    return name


def _apart(files: dict[str, Any]) -> dict[str, Any]:
    names = dict[str, str]()
    for name in files:
        if (other := names.setdefault(name.casefold(), name)) != name:
            raise ValueError(f"{other} and {name} differ only in case, and are one folder on some disks; rename one")
    return files


def _distinct(seeds: list[int]) -> list[int]:
    if len(set(seeds)) < len(seeds):
        raise ValueError("give each seed once")
    return seeds


def _without_seed(config: Config) -> Config:
    if "seed_everything" in config:
        raise ValueError("has seed_everything; give seeds instead")
    return config


def _listed(files: Any) -> Any:
    return [files] if isinstance(files, str) else files


Name = Annotated[str, AfterValidator(_names_a_folder)]
Files = Annotated[list[str], BeforeValidator(_listed), Field(min_length=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Choice(_Strict):
    """Cells of a dataset, of a method, or of both."""

    dataset: str | None = None
    method: str | None = None

    def matches(self, dataset: str, method: str) -> bool:
        """Whether it chooses the cells of this pair."""
        return self.dataset in (None, dataset) and self.method in (None, method)


class Override(Choice):
    """A config for some cells."""

    config: Annotated[Config, AfterValidator(_without_seed)]


class LeftOut(Choice):
    """Pairs without cells."""

    @model_validator(mode="after")
    def _names_something(self) -> "LeftOut":
        if self.dataset is None and self.method is None:
            raise ValueError("names neither a dataset nor a method")
        return self


class Benchmark(_Strict):
    """A benchmark file.

    Args:
        name: of the benchmark, by default the file's own.
        datasets: name -> config file or list of them, relative to the benchmark file.
        methods: likewise.
        seeds: of every pair.
        config: for all cells, over the configs of dataset and method.
        overrides: configs for some cells, over everything else; later ones win.
        leave_out: pairs that are not defined, or not wanted.
        tune: what `itmbench tune` searches.
        tuned: whether cells take the options that it chose.
    """

    name: Name
    datasets: Annotated[dict[Name, Files], Field(min_length=1), AfterValidator(_apart)]
    methods: Annotated[dict[Name, Files], Field(min_length=1), AfterValidator(_apart)]
    seeds: Annotated[list[Annotated[int, Field(ge=0, lt=2**32)]], Field(min_length=1), AfterValidator(_distinct)] = [0]
    config: Annotated[Config, AfterValidator(_without_seed)] = {}
    overrides: list[Override] = []
    leave_out: list[LeftOut] = []
    tune: Space | None = None
    tuned: bool = False

    @model_validator(mode="after")
    def _apart_from_tuning(self) -> "Benchmark":
        if self.tune and self.tune.seed in self.seeds:
            raise ValueError("tune.seed: a seed of the benchmark, which must not decide its options; give another")
        return self


def load_benchmark(path: str | Path) -> Benchmark:
    """A benchmark file or a packaged benchmark, without the configs that it names.

    Raises:
        InputErrors: it is missing or malformed, or its keys are unknown; one line each.
    """
    path = find_benchmark(path)
    content = _mapping(path, load_yaml(path))
    try:
        # A key without a value means its default.
        given = {key: value for key, value in content.items() if value is not None or key not in Benchmark.model_fields}
        return Benchmark.model_validate({"name": path.stem} | given)
    except ValidationError as error:
        raise InputErrors([f"{path}: {line}" for line in dict.fromkeys(_lines(error))]) from None


def load_cells(path: str | Path, only: str = "") -> list[Cell]:
    """Cells of a benchmark file or a packaged benchmark, dataset by dataset; ``only`` is that of ``select``.

    Raises:
        InputErrors: files are missing or malformed, keys or names are unknown; one line each.
        InputError: nothing is left to run.
    """
    benchmark = load_benchmark(path)
    path = find_benchmark(path)
    wrong = [f"{path}: {line}" for line in _unknown_names(benchmark)]
    loaded: dict[str, Config] = {}
    for name in [name for files in (*benchmark.datasets.values(), *benchmark.methods.values()) for name in files]:
        try:
            file = find_config_file(name, path.parent)
            loaded[name] = _mapping(file, load_yaml(file))
        except InputError as error:
            wrong.append(str(error))
    if wrong:
        raise InputErrors(list(dict.fromkeys(wrong)))
    cells = []
    for dataset, dataset_files in benchmark.datasets.items():
        for method, method_files in benchmark.methods.items():
            if any(choice.matches(dataset, method) for choice in benchmark.leave_out):
                continue
            overrides = [choice.config for choice in benchmark.overrides if choice.matches(dataset, method)]
            config: Config = {}
            for part in [*(loaded[name] for name in (*dataset_files, *method_files)), benchmark.config, *overrides]:
                config = merge(config, part)
            cells += [
                Cell(benchmark.name, dataset, method, seed, {**copy.deepcopy(config), "seed_everything": seed})
                for seed in benchmark.seeds
            ]
    if not cells:
        raise InputError(f"{path}: leave_out leaves nothing to run")
    return select(cells, only)


def merge(base: Config, update: Mapping[str, Any]) -> Config:
    """``base`` updated key by key; where ``class_path`` changes, the arguments of the old class are dropped."""
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


def _mapping(path: Path, value: Any) -> Config:
    if not isinstance(value, dict) or not value:
        raise InputError(f"{path}: needs a mapping with at least one entry, but holds {value!r}")
    return value


def _lines(error: ValidationError) -> Iterator[str]:
    """One line for each thing that is wrong with a benchmark file."""
    for problem in error.errors():
        where = [str(part) for part in problem["loc"] if part != "[key]"]
        models: dict[str, type[BaseModel]] = {"overrides": Override, "leave_out": LeftOut}
        model = models.get(where[0], Benchmark) if len(where) > 1 else Benchmark
        if where[:1] == ["tune"]:
            model = Space if len(where) == 2 else Range
        message = problem["msg"].removeprefix("Value error, ")
        given = "a mapping" if isinstance(problem["input"], dict) else repr(problem["input"])
        if problem["type"] == "extra_forbidden":
            yield f"{'.'.join(where)}: unknown key; {choice(where[-1], model.model_fields)}"
        elif problem["type"] == "missing":
            yield f"{'.'.join(where)}: missing"
        elif where[1:] and where[0] in ("datasets", "methods") and problem["type"] in ("list_type", "string_type"):
            yield f"{'.'.join(where)}: give a config file or a list of them, not {given}"
        elif problem["type"] in ("dict_type", "model_type", "list_type"):
            kind = "list" if problem["type"] == "list_type" else "mapping"
            yield f"{'.'.join(where)}: give a {kind}, not {given}"
        elif not where:  # of the file as a whole
            yield message
        else:
            yield f"{'.'.join(where)}: {message}" + (f", not {given}" if given != "a mapping" else "")


def _unknown_names(benchmark: Benchmark) -> Iterator[str]:
    """Datasets and methods that the benchmark lacks, but that overrides, leave_out or tune name."""
    choices = [(f"tune.methods.{name}", Choice(method=name)) for name in (benchmark.tune or Space()).methods]
    choices += [(f"overrides.{number}", names) for number, names in enumerate(benchmark.overrides)]
    choices += [(f"leave_out.{number}", names) for number, names in enumerate(benchmark.leave_out)]
    for where, names in choices:
        for kind, name, known in (
            ("dataset", names.dataset, benchmark.datasets),
            ("method", names.method, benchmark.methods),
        ):
            if name is not None and name not in known:
                yield f"{where}: no {kind} {name} in this benchmark; {choice(name, known)}"
