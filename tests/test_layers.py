"""The shape of the package: imports go up one list, without circles, at the top of files; the help stays quick."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import itmbench

PACKAGE = Path(itmbench.__file__).parent
ORDER = [
    *("errors", "files", "options", "schema", "checkpoint", "units", "logs", "processors", "interruption", "here"),
    *("data", "encoders", "evaluation", "methods", "store", "runner", "report", "cli", "__main__"),
]
LAZY = {
    "wandb": "slow to import, and only needed by runs that are tracked",
    "matplotlib": "slow to import, and only needed by plots",
    "pandas": "slow to import, and not needed by `itmbench bench` where everything is done",
    "timm": "slow to import, and only needed by the encoders that use it",
    "transformers": "slow to import, and only needed by the encoders that use it",
    "tokenizers": "slow to import, and only needed by the encoders that use it",
    "torch_geometric": "slow to import, and only needed by the method that uses it",
    "fcntl": "missing on Windows",
}
"""Packages that functions outside of cli/ may import."""


def modules() -> dict[str, ast.Module]:
    """The syntax tree of every module by its dotted name."""
    trees = {}
    for path in PACKAGE.rglob("*.py"):
        name = ".".join(("itmbench", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")
        trees[name] = ast.parse(path.read_text())
    return trees


def imported(tree: ast.AST, names: set[str]) -> Iterator[str]:
    """Modules of the package that a tree imports, those under ``TYPE_CHECKING`` included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in names)
        elif isinstance(node, ast.ImportFrom) and node.module in names:
            below = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if name in names else node.module for name in below)


def test_imports_go_up_the_list_and_never_round_in_a_circle() -> None:
    trees = modules()
    graph = {name: {*imported(tree, set(trees))} for name, tree in trees.items()}
    assert graph["itmbench.runner.run"] and graph["itmbench.cli.main"]
    del graph["itmbench"]  # the public names, imported lazily
    for name, others in graph.items():
        others -= {name, "itmbench"}
        for other in others:
            assert ORDER.index(other.split(".")[1]) <= ORDER.index(name.split(".")[1]), f"{name} imports {other}"
    TopologicalSorter(graph).prepare()  # raises a CycleError that names the modules


def test_functions_import_nothing_but_what_is_slow_and_optional() -> None:
    found = set()
    for name, tree in modules().items():
        if name == "itmbench" or name.startswith("itmbench.cli."):
            continue
        for function in ast.walk(tree):
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                for node in ast.walk(function):
                    if isinstance(node, ast.Import | ast.ImportFrom):
                        module = node.names[0].name if isinstance(node, ast.Import) else str(node.module)
                        if module.partition(".")[0] not in LAZY:
                            found.add(name)
    assert found == set()


def test_import_and_help_do_not_load_torch() -> None:
    code = (
        "import sys, contextlib, io\nimport itmbench\nfrom itmbench.cli.main import COMMANDS, main\n"
        "with contextlib.redirect_stdout(io.StringIO()) as out:\n"
        "    for arguments in (['--help'], ['list'], *([name, '--help'] for name in COMMANDS)):\n"
        "        with contextlib.suppress(SystemExit):\n"
        "            main(arguments)\n"
        "assert 'dual_encoder' in out.getvalue() and 'flickr30k-mini' in out.getvalue()\n"
        "print(sorted({'torch', 'lightning', 'transformers', 'pandas', 'wandb', 'scipy', 'yaml'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_reports_and_comparisons_do_not_load_torch(results: Path, tmp_path: Path) -> None:
    code = (
        "import sys\nfrom itmbench.cli.main import main\n"
        f"for arguments in (['report'], ['report', '--format=html', '--out={tmp_path / 'page.html'}'], ['compare']):\n"
        f"    assert main([*arguments, '--results={results}']) == 0\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
