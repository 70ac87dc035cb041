"""The hash of code: which changes of a source change it, and which do not."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from itmbench.runner import code
from itmbench.runner.code import code_digest

METHODS = ("itmbench.methods.vse.VSE", "itmbench.methods.scan.SCAN", "itmbench.methods.dscmr.DSCMR")
FILES = {
    "plugin/__init__.py": "",
    "plugin/method.py": """
import numpy
from .parts import head
from . import tools
from .stars import *

class Method:
    'What it does.'

    def run(self, x):
        'Runs it.'
        # doubled
        return head(x) * 2 + tools.shift(x) + STAR
""",
    "plugin/parts.py": "def head(x):\n    from .deep.leaf import leaf\n    return leaf(x)\n",
    "plugin/tools.py": "def shift(x):\n    return x + 1\n",
    "plugin/stars.py": "STAR = 1\n",
    "plugin/deep/__init__.py": "LIMIT = 1\n",
    "plugin/deep/leaf.py": "import math\n\n\ndef leaf(x):\n    return math.exp(x)\n",
    "plugin/other.py": "WEIGHT = 1\n",
    "alone.py": "from beside import helper\n\n\nclass Alone:\n    def run(self):\n        return helper()\n",
    "beside.py": "def helper():\n    return 1\n",
}


@pytest.fixture
def edit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Replaces text in a file of a package outside this one, and returns the digest of a class there."""
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))

    def digest(name: str = "plugin/method.py", old: str = "", new: str = "", of: str = "plugin.method.Method") -> str:
        assert old in FILES[name]
        (tmp_path / name).write_text(FILES[name].replace(old, new) if old else FILES[name] + new)
        code._file.cache_clear()
        code._content.cache_clear()
        result = code_digest([of])
        (tmp_path / name).write_text(FILES[name])
        return result

    return digest


@pytest.mark.parametrize(
    ("name", "old", "new", "counts"),
    [
        ("plugin/method.py", "What it does.", "What it does, in other words.", False),
        ("plugin/method.py", "        'Runs it.'\n", "", False),
        ("plugin/method.py", "# doubled", "# twice", False),
        ("plugin/method.py", "import numpy\n", "import numpy\n\n\n", False),
        ("plugin/other.py", "1", "2", False),
        ("plugin/method.py", "head(x) *", "head(x) +", True),
        ("plugin/method.py", "import numpy", "import numpy\nprint('once')", True),
        ("plugin/deep/leaf.py", "exp", "log", True),
        ("plugin/tools.py", "x + 1", "x + 2", True),
        ("plugin/stars.py", "STAR = 1", "STAR = 2", True),
        ("plugin/__init__.py", "", "print('imported')", True),
        ("plugin/deep/__init__.py", "1", "2", True),
    ],
)
def test_imported_code_counts_and_prose_does_not(
    edit: Callable[..., str], name: str, old: str, new: str, counts: bool
) -> None:
    assert (edit(name, old, new) != edit()) == counts
    assert "plugin" not in sys.modules  # nothing was imported


def test_a_single_file_reaches_the_files_beside_it(edit: Callable[..., str]) -> None:
    assert edit("beside.py", "1", "2", of="alone.Alone") != edit(of="alone.Alone")


@pytest.mark.parametrize(
    ("file", "old", "new", "changes"),
    [
        ("methods/vse.py", "def embed", "print()\n\n    def embed", [True, False, False]),
        ("methods/cross_attention.py", "import torch\n", "import torch\nprint()\n", [False, True, False]),
        ("methods/base.py", "import torch\n", "import torch\nprint()\n", [True, True, True]),
        ("methods/base.py", "import torch\n", "import torch  # for tensors\n", [False, False, False]),
        ("runner/run.py", "import torch\n", "import torch\nprint()\n", [False, False, False]),
        ("__init__.py", "import", "import os\nimport", [False, False, False]),
    ],
)
def test_a_change_in_one_method_does_not_change_another(
    monkeypatch: pytest.MonkeyPatch, file: str, old: str, new: str, changes: list[bool]
) -> None:
    changed = Path(code.__file__).parents[1] / file
    text = changed.read_text()
    assert old in text
    code._content.cache_clear()
    before = [code_digest([method]) for method in METHODS]
    read = Path.read_bytes
    monkeypatch.setattr(
        Path, "read_bytes", lambda path: text.replace(old, new, 1).encode() if path == changed else read(path)
    )
    code._content.cache_clear()
    after = [code_digest([method]) for method in METHODS]
    code._content.cache_clear()
    assert len(set(before)) == 3
    assert [one != other for one, other in zip(before, after, strict=True)] == changes
