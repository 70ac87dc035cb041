"""Print the import graph of the package's folders as mermaid: ``python scripts/draw_imports.py``.

An arrow points from a folder to one it imports. Imports that follow from others are left out, and so are the single
modules beside the folders, which import no folder.
"""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "itmbench"


def folder_imports(package: Path = PACKAGE) -> dict[str, set[str]]:
    """Map each folder of the package to the folders it imports."""
    graph: dict[str, set[str]] = {path.parent.name: set() for path in sorted(package.glob("*/__init__.py"))}
    for path in sorted(package.glob("*/**/*.py")):
        name = path.relative_to(package).parts[0]
        for node in ast.walk(ast.parse(path.read_text())):
            modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            modules += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            parts = [module.split(".") for module in modules]
            graph[name] |= {part[1] for part in parts if part[0] == package.name and len(part) > 1} & (
                set(graph) - {name}
            )
    return graph


def direct(graph: dict[str, set[str]]) -> list[tuple[str, str]]:
    """Edges of the transitive reduction, highest folder first.

    Raises:
        graphlib.CycleError: the imports form a circle.
    """
    by_name = {name: sorted(imports) for name, imports in graph.items()}
    order = list(TopologicalSorter(by_name).static_order())  # imported folders first
    reached: dict[str, set[str]] = {}
    for name in order:
        reached[name] = graph[name].union(*(reached[other] for other in graph[name]))
    edges = [
        (name, other)
        for name in reversed(order)
        for other in sorted(graph[name], key=order.index, reverse=True)
        if not any(other in reached[between] for between in graph[name])
    ]
    return edges


def mermaid(graph: dict[str, set[str]]) -> str:
    """The reduced graph as a mermaid flowchart."""
    return "\n".join(["graph TD", *(f"  {name} --> {other}" for name, other in direct(graph))])


if __name__ == "__main__":
    print(mermaid(folder_imports()))
