"""Recognise a finished benchmark without importing torch.

A cell's key depends on its resolved config, and resolving needs the classes, which takes seconds to import. So a plan
is saved with a digest of everything that it was made from: configs, code, versions, and the files of the datasets. As
long as that digest stays the same, so do the keys.
"""

import importlib.util
import json
import re
from collections.abc import Sequence
from pathlib import Path

from itmbench import store
from itmbench.data.cache import inputs_digest
from itmbench.files import digest, file_digest
from itmbench.runner import registry
from itmbench.runner.code import class_paths
from itmbench.runner.spec import Cell
from itmbench.store.versions import versions

FOLDER = ".plans"
"""Saved plans, below the results folder; removing it costs one planning."""


def plan_path(cells: Sequence[Cell], results: Path) -> Path:
    """File of the saved plan for a selection of cells, whatever their configs are."""
    return results / FOLDER / f"{cells[0].benchmark}-{digest(*(str(cell.folder) for cell in cells))}.json"


def known_keys(cells: Sequence[Cell], results: Path) -> list[str] | None:
    """The keys of cells from their saved plan; None if only planning can tell."""
    path = plan_path(cells, results)
    try:
        plan = json.loads(path.read_bytes())
        if plan["source"] is None or plan["source"] != source(cells, [Path(name) for name in plan["inputs"]], path):
            return None
        keys = [planned["key"] for planned in plan["cells"]]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return keys if len(keys) == len(cells) else None


def is_done(cells: Sequence[Cell], results: Path) -> bool:
    """Whether all cells are known to be finished; False if only planning can tell."""
    keys = known_keys(cells, results)
    return keys is not None and all(
        (folder / store.RESULT).exists() and store.Result.load(folder).key == key
        for folder, key in zip((results / cell.folder for cell in cells), keys, strict=True)
    )


def source(cells: Sequence[Cell], inputs: Sequence[Path], path: Path) -> str | None:
    """Digest of everything that decides the keys of cells; None if a config names further config files.

    ``inputs`` are the files and folders that the datasets were read from; an index of them lies beside the plan.
    """
    configs = [cell.config for cell in cells]
    if re.search(r'\.(yaml|yml|json)"', json.dumps(configs, default=str)):
        return None
    packages = {path.partition(".")[0] for path in (__name__, *class_paths(configs))}
    packages |= {entry.target.partition(".")[0] for group in registry.GROUPS for entry in registry.entries(group)}
    code = [[str(file), file_digest(file)] for package in sorted(packages) for file in _sources(package)]
    parts = [configs, [cell.trials for cell in cells], code, versions()]
    return digest(json.dumps(parts, sort_keys=True, default=str), inputs_digest(inputs, path.with_suffix(".index")))


def _sources(package: str) -> list[Path]:
    """Source files of a package, or of a single module and whatever lies beside it; nothing is imported."""
    spec = importlib.util.find_spec(package)
    if spec is None:
        return []
    if spec.submodule_search_locations:
        return sorted(path for folder in spec.submodule_search_locations for path in Path(folder).rglob("*.py"))
    if not (spec.origin and Path(spec.origin).is_file()):
        return []
    folder = Path(spec.origin).parent
    packages = [path.parent for path in folder.glob("*/__init__.py")]
    return sorted({*folder.glob("*.py"), *(path for inner in packages for path in inner.rglob("*.py"))})
