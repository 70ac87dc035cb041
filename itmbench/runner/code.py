"""A hash of the code that can change a result, read from source without importing it.

It covers the modules of the classes in a config and every module that these import, directly or indirectly, within the
packages of the classes. Comments, layout and docstrings do not count. Versions of other packages are recorded in the
result instead.
"""

import ast
import importlib.util
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import itmbench
from itmbench.files import digest
from itmbench.store.versions import own_package

INSTALLED = {"site-packages", "dist-packages"}
EXCLUDED = {"itmbench"}
"""Modules that cannot change a result: the list of public names, which imports everything and holds the version."""
PUBLIC = {f"itmbench.{name}": module for name, module in itmbench.MODULE_OF.items()}
"""Where the public names are defined that classes may import from the package itself."""


def code_digest(class_paths: Iterable[str]) -> str:
    """16 hexadecimal digits over the code of classes given by import path, such as ``package.module.Class``."""
    waiting = list(class_paths)
    packages = {"itmbench", *(path.partition(".")[0] for path in waiting)}
    sources: dict[Path, str] = {}
    while waiting:
        name = waiting.pop()
        name = PUBLIC.get(name, name)
        if name in EXCLUDED or not _is_own(name, packages):
            continue
        file = _file(name)
        if file is None:  # a name inside a module
            waiting += [name.rpartition(".")[0]] if "." in name else []
        elif file not in sources:
            sources[file], imported = _content(file, name)
            waiting += imported
            waiting += [name.rpartition(".")[0]] if "." in name else []  # importing a module runs its packages
    return digest(*sorted(sources.values()))


def class_paths(config: Any) -> Iterator[str]:
    """Every class that a config names by module, except those of packages whose versions are recorded."""
    if isinstance(config, dict):
        path = config.get("class_path")
        if isinstance(path, str) and "." in path and own_package(path) is not None:
            yield path
    for value in config.values() if isinstance(config, dict) else config if isinstance(config, list) else ():
        yield from class_paths(value)


def _is_own(name: str, packages: set[str]) -> bool:
    """Whether a module belongs to one of the packages, or lies beside one of them that is a single file."""
    top = name.partition(".")[0]
    if top in packages:
        return True
    file = _file(top)
    singles = {path.parent for package in packages if (path := _file(package)) and path.stem == package}
    place = None if file is None else file.parents[1] if file.name == "__init__.py" else file.parent
    return place in singles and place is not None and INSTALLED.isdisjoint(place.parts)


@cache
def _file(name: str) -> Path | None:
    """The source file of a module or package; None if the name is neither."""
    top, *inner = name.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except ValueError:  # the module of a program
        return None
    if spec is None or spec.origin is None or not (inner or spec.origin.endswith(".py")):
        return None
    if not inner:
        return Path(spec.origin)
    for folder in spec.submodule_search_locations or ():
        path = Path(folder, *inner)
        for file in (path.with_name(f"{path.name}.py"), path / "__init__.py"):
            if file.is_file():
                return file
    return None


@cache
def _content(file: Path, name: str) -> tuple[str, list[str]]:
    """The code of a module without its prose, and the names that it imports anywhere."""
    tree = ast.parse(file.read_bytes())
    imported = list(_imports(tree, name if file.name == "__init__.py" else name.rpartition(".")[0]))
    return f"{name} {_plain(tree)}", imported


def _plain(node: Any) -> Any:
    """A syntax tree without positions and docstrings; without empty fields, it is the same in every Python version."""
    if isinstance(node, ast.AST):
        return [type(node).__name__, *(_plain(value) for _, value in ast.iter_fields(node) if value not in (None, []))]
    return [_plain(item) for item in node if not _is_prose(item)] if isinstance(node, list) else node


def _imports(tree: ast.AST, package: str) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            origin = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{origin}.{alias.name}" for alias in node.names)


def _is_prose(statement: Any) -> bool:
    """Whether a statement is a string alone: a docstring, wherever it stands."""
    value = statement.value if isinstance(statement, ast.Expr) else None
    return isinstance(value, ast.Constant) and isinstance(value.value, str)
