"""A benchmark that is done, remembered: asked again, it is known without a look at any model or photograph.

To find the keys of cells, configs are resolved against the classes that they name, which takes the import of torch and
all that stands on it. So what the keys were found from is kept beside the results: as long as configs, code, the files
that the datasets were read from and versions are the same, so are the keys.
"""

import hashlib
import importlib.util
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from itmbench import store
from itmbench.data.cache import inputs_digest, write_whole
from itmbench.runner import registry
from itmbench.runner.spec import Cell
from itmbench.store.environment import own_package, versions

FOLDER = ".done"
"""Below the results; it can be removed, at the price of one plan."""


def recall(cells: Sequence[Cell], root: Path) -> bool:
    """Whether all of these cells are known to be done: never wrongly yes, and no whenever something has changed.

    Raises:
        InputError: a result cannot be read.
    """
    path = _path(cells, root)
    try:
        known = json.loads(path.read_bytes())
        inputs = [Path(each) for each in known["inputs"]]
        if known["asked"] != _asked(cells) or known["read"] != inputs_digest(inputs, path.with_suffix(".index")):
            return False
        keys = known["keys"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    folders = [root / each.folder for each in cells]
    return len(keys) == len(cells) and all(
        (folder / store.RESULT).exists() and store.Result.load(folder).key == key
        for folder, key in zip(folders, keys, strict=True)
    )


def source(cells: Sequence[Cell], inputs: Sequence[Path], root: Path) -> dict[str, Any]:
    """What the keys of cells come from, taken when they are found: code and data may change while cells run.

    Args:
        cells: which.
        inputs: files and folders that all their datasets were read from.
        root: the results folder.
    """
    read = inputs_digest(inputs, _path(cells, root).with_suffix(".index"))
    return {"asked": _asked(cells), "inputs": [str(each) for each in inputs], "read": read}


def remember(cells: Sequence[Cell], keys: Sequence[str], source: dict[str, Any], root: Path) -> None:
    """Keep what the keys of cells that are done were found from, unless their configs name files of configs.

    Args:
        cells: that are done.
        keys: theirs.
        source: as ``source`` gave it when they were found.
        root: the results folder.
    """
    if any(value.endswith((".yaml", ".yml", ".json")) for each in cells for value in _texts(each.config)):
        return
    path, known = _path(cells, root), {**source, "keys": list(keys)}
    write_whole(path, lambda file: file.write(json.dumps(known).encode()))


def _path(cells: Sequence[Cell], root: Path) -> Path:
    """The file of a choice of cells, whatever their configs are."""
    folders = "\n".join(str(each.folder) for each in cells)
    return root / FOLDER / f"{cells[0].benchmark}-{_hash(folders.encode())}.json"


def _asked(cells: Sequence[Cell]) -> str:
    """A hash of configs as they were written, and of all code and versions that resolving them may reach."""
    configs = [each.config for each in cells]
    packages = {__name__.partition(".")[0], *_packages(configs)}
    packages |= {entry.target.partition(".")[0] for group in registry.GROUPS for entry in registry.entries(group)}
    code = [[str(path), _hash(path.read_bytes())] for package in sorted(packages) for path in _sources(package)]
    return _hash(json.dumps([configs, code, versions()], sort_keys=True, default=str).encode())


def _texts(config: Any) -> Iterator[str]:
    """Every text among the values of a config."""
    if isinstance(config, str):
        yield config
    for value in config.values() if isinstance(config, dict) else config if isinstance(config, list) else ():
        yield from _texts(value)


def _packages(config: Any) -> Iterator[str]:
    """Packages of the classes that a config names by their modules, but for those whose versions are looked at."""
    if isinstance(config, dict):
        path = config.get("class_path")
        if isinstance(path, str) and "." in path:
            package = own_package(path)
            if package is not None:
                yield package
        config = list(config.values())
    if isinstance(config, list):
        for value in config:
            yield from _packages(value)


def _sources(package: str) -> list[Path]:
    """Source files of a package, or of a module, without importing it."""
    spec = importlib.util.find_spec(package)
    if spec is None:
        return []
    if spec.submodule_search_locations:
        return sorted(path for folder in spec.submodule_search_locations for path in Path(folder).rglob("*.py"))
    if not (spec.origin and Path(spec.origin).is_file()):
        return []
    folder = Path(spec.origin).parent  # a file where the user is: it may import what lies beside it
    beside = [path.parent for path in folder.glob("*/__init__.py")]
    return sorted({*folder.glob("*.py"), *(path for each in beside for path in each.rglob("*.py"))})


def _hash(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=8).hexdigest()
