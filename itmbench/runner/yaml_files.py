"""YAML files, read without what YAML silently turns into something else."""

import re
from pathlib import Path
from typing import Any

import yaml

from itmbench.errors import InputError

MOST_VALUES = 100_000
"""Values of a YAML file; aliases can make billions of a few lines."""


def load_yaml(path: Path) -> Any:
    """The content of a YAML file.

    Raises:
        InputError: the file is missing or not YAML, a mapping has the same key twice, or aliases make it endless; with
            the line number.
    """
    try:
        return yaml.load(path.read_text(encoding="utf-8"), _Loader)  # noqa: S506  it is a SafeLoader
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); name a YAML file") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        problem = " ".join(str(getattr(error, "problem", error)).split())
        raise InputError(f"{where}: not YAML ({problem}); correct it") from None
    except (RecursionError, ValueError) as error:  # nested too deep, an impossible date, 5,000 digits
        raise InputError(f"{path}: cannot be read ({error}); correct it") from None


class _Loader(yaml.SafeLoader):
    """Refuses what PyYAML silently reinterprets, and aliases that never end.

    In YAML 1.1, 010 is 8 and 1:30 is 90; of a repeated key, PyYAML keeps the last value.
    """

    def get_single_node(self) -> yaml.Node | None:
        root = super().get_single_node()
        if root is not None:
            _size(root, {}, set())
        return root

    def compose_scalar_node(self, anchor: Any) -> yaml.ScalarNode:
        node = super().compose_scalar_node(anchor)
        kind = node.tag.rpartition(":")[2]
        if kind in ("int", "float") and (":" in node.value or re.fullmatch("[-+]?0[0-9_]+", node.value)):
            number = self.construct_yaml_int(node) if kind == "int" else self.construct_yaml_float(node)
            problem = f"{node.value} means {number} in YAML; write that, or '{node.value}' for text"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
        return node

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen = set[tuple[str, str]]()
        for key, _ in node.value:
            if (name := (key.tag, str(key.value))) in seen:
                raise yaml.MarkedYAMLError(
                    problem=f"{key.value} is given twice; remove one", problem_mark=key.start_mark
                )
            seen.add(name)
        return node


def _size(node: yaml.Node, known: dict[int, int], above: set[int]) -> int:
    """Number of values of a node with its aliases written out, at most ``MOST_VALUES`` and without cycles."""
    if id(node) in above:
        raise yaml.MarkedYAMLError(problem="an alias names what it is part of", problem_mark=node.start_mark)
    if id(node) not in known:
        parts = node.value if isinstance(node, yaml.CollectionNode) else []
        inner = [part for pair in parts for part in pair] if isinstance(node, yaml.MappingNode) else parts
        known[id(node)] = 1 + sum(_size(part, known, above | {id(node)}) for part in inner)
    if known[id(node)] > MOST_VALUES:
        raise yaml.MarkedYAMLError(problem="aliases make it too large", problem_mark=node.start_mark)
    return known[id(node)]
