"""Methods, datasets and benchmarks by name: those of this package, and classes that others declare as entry points."""

import ast
import importlib.util
import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path

from itmbench.errors import InputError, choice, did_you_mean, letters_of

GROUPS = ("methods", "datasets")
_PACKAGE = Path(__file__).parents[1]


@dataclass(frozen=True)
class Entry:
    """A registered class: its short name and its location (``package.module:Class``)."""

    group: str
    name: str
    target: str

    def load(self) -> type:
        """Import the class, so that configs may name it without its module; an InputError if that fails."""
        module, _, attribute = self.target.partition(":")
        try:
            return getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError) as error:
            raise InputError(
                f"entry point itmbench.{self.group} {self.name} = {self.target}: cannot be imported ({error}); "
                "repair or uninstall the package that declares it"
            ) from error

    def summary(self) -> str:
        """First line of the class's docstring, read from the source, so that listing imports nothing heavy."""
        module, _, name = self.target.partition(":")
        definition = _find_class(module, name)
        docstring = ast.get_docstring(definition) if definition else inspect.getdoc(self.load())
        return (docstring or "").partition("\n")[0]


def entries(group: str) -> Iterator[Entry]:
    """All entries of a group ("methods" or "datasets"), sorted by name."""
    for point in sorted(entry_points(group=f"itmbench.{group}"), key=lambda point: point.name):
        yield Entry(group, point.name, point.value)


def find(group: str, name: str) -> Entry:
    """The entry of that name; an InputError that lists the names if there is none."""
    known = {entry.name: entry for entry in entries(group)}
    if name not in known:
        raise InputError(f"{name}: no such name among the {group}; {choice(name, known)}")
    return known[name]


@cache
def load_all() -> None:
    """Import every registered class, so that configs may use short class names."""
    for group in GROUPS:
        for entry in entries(group):
            entry.load()


def benchmarks_folder() -> Path:
    """The packaged YAML files: inside the installed package, or beside it in a source checkout."""
    packaged = _PACKAGE / "benchmarks"
    return packaged if packaged.is_dir() else _PACKAGE.parent / "benchmarks"


def find_config(group: str, name: str) -> Path | None:
    """The packaged config of a method or a dataset by its name, in any case and punctuation; None if there is none."""
    folder = benchmarks_folder() / "configs" / {"datasets": "data"}.get(group, group)
    letters = letters_of(name)
    return next((file for file in sorted(folder.glob("*.yaml")) if letters_of(file.stem) == letters), None)


def find_config_file(name: str, folder: Path = Path()) -> Path:
    """A config by its path from a folder, or a packaged one as "configs/…" or "benchmarks/configs/…".

    Raises:
        InputError: there is neither; the message names a packaged config that may be meant.
    """
    if (folder / name).exists():
        return folder / name
    packaged = benchmarks_folder()
    configs = {file.relative_to(packaged).as_posix(): file for file in (packaged / "configs").rglob("*.yaml")}
    if file := configs.get(name.removeprefix("benchmarks/")):
        return file
    stems = {file.stem: known for known, file in configs.items()}
    hint = did_you_mean(Path(name).stem, stems, stems.__getitem__)
    raise InputError(f"{folder / name}: no such file; {hint}give its path, or the name of a packaged config")


def benchmarks() -> dict[str, Path]:
    """The packaged benchmark files by name, such as "mini" or "ablations/sedra"."""
    folder = benchmarks_folder()
    files = {path.relative_to(folder).with_suffix("").as_posix(): path for path in sorted(folder.rglob("*.yaml"))}
    return {name: path for name, path in files.items() if not name.startswith("configs/")}


def find_benchmark(spec: str | Path) -> Path:
    """A benchmark file, given by its path or, for the packaged ones, by name.

    Raises:
        InputError: there is neither; the message lists the names.
    """
    if Path(spec).is_file():
        return Path(spec)
    packaged = benchmarks()
    if str(spec) not in packaged:
        raise InputError(f"{spec}: no such file or benchmark; {choice(str(spec), packaged)}, or give a YAML file")
    return packaged[str(spec)]


def _find_class(module: str, name: str) -> ast.ClassDef | None:
    """The definition of a class in a module or where the module imports it from; None if no source shows it."""
    package, *below = module.split(".")
    spec = importlib.util.find_spec(package)  # of a module inside a package, this would import the package
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).parent.joinpath(*below) if below else Path(spec.origin)
    source = next((file for file in (path, path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))) if source else ():
        if isinstance(node, ast.ClassDef) and node.name == name:
            return node
        if isinstance(node, ast.ImportFrom) and node.module and name in (alias.name for alias in node.names):
            return _find_class(node.module, name)
    return None
