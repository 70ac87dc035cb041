"""Methods and datasets by name: those of this package and of any other that declares an entry point."""

import ast
import importlib.util
import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path

from itmbench.errors import InputError

GROUPS = ("methods", "datasets")


@dataclass(frozen=True)
class Entry:
    """A registered class: its short name and where it is (``package.module:Class``)."""

    group: str
    name: str
    target: str

    def load(self) -> type:
        """Import the class, after which configs may name it without its module.

        Raises:
            InputError: the module or the class cannot be imported.
        """
        module, _, attribute = self.target.partition(":")
        try:
            return getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError) as error:
            raise InputError(
                f"entry point itmbench.{self.group} {self.name} = {self.target}: cannot be imported ({error}); "
                "repair or uninstall the package that declares it"
            ) from error

    def summary(self) -> str:
        """First line of the class's docstring, read from the source, so that listing imports nothing."""
        module, _, attribute = self.target.partition(":")
        for node in ast.walk(ast.parse(_source(module))):
            if isinstance(node, ast.ClassDef) and node.name == attribute:
                return (ast.get_docstring(node) or "").partition("\n")[0]
        return (inspect.getdoc(self.load()) or "").partition("\n")[0]


def entries(group: str) -> Iterator[Entry]:
    """All entries of a group ("methods" or "datasets"), by name."""
    for point in sorted(entry_points(group=f"itmbench.{group}"), key=lambda point: point.name):
        yield Entry(group, point.name, point.value)


def find(group: str, name: str) -> Entry:
    """The entry of that name.

    Raises:
        InputError: there is none; the message lists what there is.
    """
    known = {entry.name: entry for entry in entries(group)}
    if name not in known:
        raise InputError(f"{name}: no such name among the {group}; choose one of {', '.join(known)}")
    return known[name]


def load_all() -> None:
    """Import every registered class, so that configs may use short class names."""
    for group in GROUPS:
        for entry in entries(group):
            entry.load()


def _source(module: str) -> str:
    """Source text of a module; empty where it has none (a package written in another way)."""
    spec = importlib.util.find_spec(module)
    return Path(spec.origin).read_text() if spec is not None and spec.origin else ""
