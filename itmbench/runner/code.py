"""A hash of the code that can change a result: the definitions that classes reach, read from source, not run.

From a class the search goes to every name that its definition mentions, through the imports of its module, to the
definitions of those names; so a change in one method's folder is no change of another method. Docstrings, comments
and layout do not count. It stays inside the packages of the classes asked for: versions of other packages are recorded
in a result, and do not make it another one.
"""

import ast
import hashlib
import importlib.util
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

Place = tuple[str, str | None]
"""A module and a name in it; None: all of it."""


def code_digest(classes: Iterable[type]) -> str:
    """16 hex digits over the code that the classes reach, within their packages and this one."""
    roots: list[Place] = [(each.__module__, each.__qualname__.partition(".")[0]) for each in classes]
    packages = {__name__.partition(".")[0], *(module.partition(".")[0] for module, _ in roots)}
    seen: set[Place] = set()
    found: dict[str, set[str]] = {}
    waiting = list(roots)
    while waiting:
        place = waiting.pop()
        if place in seen or not _own(place[0], packages):
            continue
        seen.add(place)
        code, reached = _reach(*place)
        found.setdefault(place[0], set()).update(code)
        waiting += reached
    text = "\n".join(f"{name} {' '.join(sorted(found[name]))}" for name in sorted(found))
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


@dataclass
class _Module:
    """A module's top level: what each statement binds, and what it mentions.

    Args:
        name: with its package.
        bound: name -> the statements that bind it.
        imported: name -> where an import takes it from.
        always: statements that bind nothing, such as calls: they run whenever the module is imported.
        stars: modules whose names are all imported.
        modules: that are imported by their own name, perhaps for what that does.
    """

    name: str
    bound: dict[str, list[ast.stmt]] = field(default_factory=dict)
    imported: dict[str, list[Place]] = field(default_factory=dict)
    always: list[ast.stmt] = field(default_factory=list)
    stars: list[str] = field(default_factory=list)
    modules: list[str] = field(default_factory=list)

    def reach(self, name: str | None) -> tuple[set[str], list[Place]]:
        """Hashes of the statements that a name, or everything, needs here, and the places that these lead to."""
        code: set[str] = set()
        parents = [self.name.rsplit(".", depth)[0] for depth in range(1, self.name.count(".") + 1)]
        # Importing a module runs its packages, too.
        places: list[Place] = [(module, "") for module in parents]
        places += [(module, None) for module in self.modules]
        known = name in self.bound or name in self.imported
        if name and not known and _is_module(f"{self.name}.{name}"):
            return code, [*places, (f"{self.name}.{name}", None)]
        if name == "" or known:
            waiting = [name] if name else []
        else:  # all of it, or a name that is made in a way not understood here
            waiting = [*self.bound, *self.imported]
            places += [(module, None) for module in self.stars]
        seen: set[str] = set()
        statements = list(self.always)
        while waiting or statements:
            for statement in statements:
                digest, mentioned = _content(statement)
                code.add(digest)
                waiting += mentioned
                places += _imports(statement, self.name)
            statements = []
            if waiting and (each := waiting.pop()) not in seen:
                seen.add(each)
                statements = self.bound.get(each, [])
                places += self.imported.get(each, [])
                if self.stars and each not in self.bound and each not in self.imported:
                    places += [(module, each) for module in self.stars if each in _module(module).bound]
        return code, places


@cache
def _reach(module: str, name: str | None) -> tuple[set[str], list[Place]]:
    return _module(module).reach(name)


@cache
def _module(name: str) -> _Module:
    found = _Module(name)
    for statement in ast.parse(_source(name)).body:
        if isinstance(statement, ast.Import | ast.ImportFrom):
            _add_import(found, statement)
        elif names := list(_bound(statement)):
            for each in names:
                found.bound.setdefault(each, []).append(statement)
        elif not _is_prose(statement):
            found.always.append(statement)
    return found


def _add_import(module: _Module, statement: ast.Import | ast.ImportFrom) -> None:
    if isinstance(statement, ast.Import):
        module.modules += [alias.name for alias in statement.names]
    else:
        origin = _origin(statement, module.name)
        for alias in statement.names:
            if alias.name == "*":
                module.stars.append(origin)
            else:
                module.imported.setdefault(alias.asname or alias.name, []).append((origin, alias.name))


def _imports(statement: ast.stmt, module: str) -> Iterator[Place]:
    """Places that imports inside a function or a branch lead to."""
    for node in ast.walk(statement):
        if isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            origin = _origin(node, module)
            yield from ((origin, None if alias.name == "*" else alias.name) for alias in node.names)


def _origin(statement: ast.ImportFrom, module: str) -> str:
    """The module that an import takes names from, relative ones resolved."""
    if not statement.level:
        return statement.module or ""
    package = module if _is_package(module) else module.rpartition(".")[0]
    base = package.rsplit(".", statement.level - 1)[0] if statement.level > 1 else package
    return f"{base}.{statement.module}" if statement.module else base


def _bound(statement: ast.stmt) -> Iterator[str]:
    """The names that a statement binds at the top level; of branches and loops, all that are bound inside."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield statement.name
        return
    for node in ast.walk(statement):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Import | ast.ImportFrom):
            yield from (alias.asname or alias.name.partition(".")[0] for alias in node.names)


@cache
def _content(statement: ast.stmt) -> tuple[str, list[str]]:
    """Hash of a statement without its prose, and the names that it mentions, also in annotations that are strings."""
    names = {node.id for node in ast.walk(statement) if isinstance(node, ast.Name)}
    return hashlib.blake2b(repr(_plain(statement)).encode(), digest_size=8).hexdigest(), sorted(names)


def _plain(node: Any) -> Any:
    """A syntax tree as nested lists, the same under every version of Python: without empty fields and positions."""
    if isinstance(node, ast.AST):
        fields = [(name, _plain(value)) for name, value in ast.iter_fields(node) if value is not None and value != []]
        return [type(node).__name__, *fields]
    if isinstance(node, list):
        return [_plain(each) for each in node if not _is_prose(each)]
    return node


def _is_prose(node: Any) -> bool:
    """Whether a statement is a string alone: a docstring, wherever it stands."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _own(module: str, packages: set[str]) -> bool:
    """Whether the search goes into a module: one of the packages, or beside a root that is a file of its own."""
    top = module.partition(".")[0]
    if top in packages:
        return _is_module(module)
    folder = _file(top).parent if _is_module(top) else None
    return folder is not None and folder in {
        _file(each).parent for each in packages if _is_module(each) and not _is_package(each) and not _installed(each)
    }


def _installed(module: str) -> bool:
    return not {"site-packages", "dist-packages"}.isdisjoint(_file(module).parts)


@cache
def _is_module(name: str) -> bool:
    """Whether a name is a module written in Python, or a package."""
    return _file(name).suffix == ".py"


def _is_package(module: str) -> bool:
    return _file(module).name == "__init__.py"


@cache
def _file(module: str) -> Path:
    """The source file of a module; an empty path where there is none."""
    loaded = sys.modules.get(module)
    origin = getattr(loaded, "__file__", None)
    if origin is None:
        try:
            spec = importlib.util.find_spec(module)
        except (ImportError, ValueError, AttributeError):
            spec = None
        origin = spec.origin if spec is not None else None
    return Path(origin or "")


def _source(module: str) -> str:
    return _file(module).read_text(encoding="utf-8")
