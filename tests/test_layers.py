"""A folder imports only from folders above it in the list, so that nothing below can change what is above."""

import ast
import subprocess
import sys
from pathlib import Path

import itmbench

PACKAGE = Path(itmbench.__file__).parent
ORDER = ["errors", "files", "data", "encoders", "evaluation", "methods", "store", "runner", "report", "cli", "__main__"]
ALLOWED = {("__init__", "evaluation"), ("__init__", "store")}  # itmbench.evaluate, itmbench.load_results


def layer(name: str) -> str:
    return name.split(".")[1] if "." in name else "__init__"


def imports(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.add(node.module)
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return {name for name in names if name.split(".")[0] == "itmbench" and name != "itmbench"}


def test_imports_go_up_the_list_only() -> None:
    wrong = []
    for path in PACKAGE.rglob("*.py"):
        here = path.relative_to(PACKAGE).with_suffix("").parts[0]
        for name in imports(path):
            there = layer(name)
            if (here, there) not in ALLOWED and (here == "__init__" or ORDER.index(there) > ORDER.index(here)):
                wrong.append(f"{path.relative_to(PACKAGE)} imports {name}")
    assert not wrong


def test_import_and_help_do_not_load_torch() -> None:
    code = (
        "import sys, contextlib, io\nfrom itmbench.cli.main import main\n"
        "for arguments in (['--help'], ['bench', '--help'], ['report', '--help']):\n"
        "    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):\n"
        "        main(arguments)\n"
        "with contextlib.redirect_stdout(io.StringIO()) as out:\n"
        "    main(['list'])\n"
        "assert 'dual_encoder' in out.getvalue() and 'flickr30k-mini' in out.getvalue()\n"
        "print(sorted({'torch', 'lightning', 'transformers', 'pandas', 'wandb'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
