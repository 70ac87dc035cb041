"""The hash of code: what of a source changes it, and what does not."""

import importlib
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from itmbench.methods.dscmr import DSCMR
from itmbench.methods.losses import TripletLoss
from itmbench.methods.scan import SCAN
from itmbench.methods.vse import VSE
from itmbench.runner import code
from itmbench.runner.code import code_digest

METHOD = '''"""A method."""
import numpy
from .parts import head, SIZE as WIDTH
from . import tools
from .stars import *


class Method:
    """What it does."""

    size: int = WIDTH

    def run(self, x):
        """Runs it."""
        # doubled
        return head(x) * FACTOR + tools.shift(x) + STAR


FACTOR = 2


class Unused:
    weight = 1
'''
PARTS = """SIZE = 3
OTHER = 5
LEAF = 7

def head(x):
    from .deep.leaf import leaf
    return leaf(x) + LEAF

def unused(x):
    return OTHER
"""


@pytest.fixture
def edit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Replaces text in a file of a package outside this one, and returns the digest of its method."""
    files = {
        "plugin/__init__.py": "",
        "plugin/method.py": METHOD,
        "plugin/parts.py": PARTS,
        "plugin/tools.py": "def shift(x):\n    return x + 1\n",
        "plugin/stars.py": "STAR = 1\nMOON = 1\n",
        "plugin/deep/__init__.py": "LIMIT = 1\n",
        "plugin/deep/leaf.py": "import math\n\n\ndef leaf(x):\n    return math.exp(x)\n",
        "alone.py": "from beside import helper\n\n\nclass Alone:\n    def run(self):\n        return helper()\n",
        "beside.py": "def helper():\n    return 1\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    for module in [each for each in sys.modules if each.partition(".")[0] in ("plugin", "alone", "beside")]:
        del sys.modules[module]  # of another test

    def digest(name: str = "plugin/method.py", old: str = "", new: str = "", of: str = "plugin.method.Method") -> str:
        text = (tmp_path / name).read_text()
        assert old in text
        (tmp_path / name).write_text(text.replace(old, new) if old else text + new)
        for cached in (code._module, code._reach, code._file, code._is_module):
            cached.cache_clear()
        module, _, attribute = of.rpartition(".")
        found = code_digest([getattr(importlib.import_module(module), attribute)])
        (tmp_path / name).write_text(text)
        return found

    return digest


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("plugin/method.py", "What it does.", "What it does, in other words."),
        ("plugin/method.py", '        """Runs it."""\n', ""),
        ("plugin/method.py", "# doubled", "# twice"),
        ("plugin/method.py", "import numpy\n", "import numpy\n\n\n"),
        ("plugin/method.py", "weight = 1", "weight = 2"),
        ("plugin/parts.py", "OTHER = 5", "OTHER = 6"),
        ("plugin/stars.py", "MOON = 1", "MOON = 2"),
        ("plugin/parts.py", "return OTHER", "return 1 + OTHER"),
    ],
)
def test_prose_and_what_is_not_reached_do_not_count(edit: Callable[..., str], name: str, old: str, new: str) -> None:
    assert edit(name, old, new) == edit()


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("plugin/method.py", "head(x) *", "head(x) +"),
        ("plugin/method.py", "FACTOR = 2", "FACTOR = 3"),
        ("plugin/method.py", "FACTOR = 2", "FACTOR = 2\nprint('once')"),
        ("plugin/parts.py", "SIZE = 3", "SIZE = 4"),
        ("plugin/parts.py", "LEAF = 7", "LEAF = 8"),
        ("plugin/deep/leaf.py", "exp", "log"),
        ("plugin/tools.py", "x + 1", "x + 2"),
        ("plugin/stars.py", "STAR = 1", "STAR = 2"),
        ("plugin/__init__.py", "", "print('imported')"),
    ],
)
def test_what_is_reached_counts(edit: Callable[..., str], name: str, old: str, new: str) -> None:
    assert edit(name, old, new) != edit()


def test_a_file_of_its_own_reaches_the_files_beside_it(edit: Callable[..., str]) -> None:
    assert edit("beside.py", "1", "2", of="alone.Alone") != edit(of="alone.Alone")


def test_a_change_in_one_method_is_no_change_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    source = code._source

    def digests(module: str = "", old: str = "", new: str = "") -> list[str]:
        code._module.cache_clear()
        code._reach.cache_clear()
        monkeypatch.setattr(
            code, "_source", lambda name: source(name).replace(old, new) if name == module else source(name)
        )
        return [code_digest([method]) for method in (VSE, SCAN, DSCMR)]

    def changed(module: str, old: str, new: str) -> list[bool]:
        assert old in source(module)
        return [one != other for one, other in zip(before, digests(module, old, new), strict=True)]

    before = digests()
    assert len(set(before)) == 3
    assert changed(VSE.__module__, "def encode_image", "print()\n\n    def encode_image") == [True, False, False]
    assert changed(TripletLoss.__module__, "margin: float = 0.2", "margin: float = 0.3") == [True, True, False]
    assert changed("itmbench.methods.base", "lr: float = 1e-3", "lr: float = 1e-4") == [True, True, True]
    assert changed("itmbench.methods.base", '"""Base of all methods', '"""The base of all methods') == [False] * 3
    assert changed("itmbench.evaluation.functional", "import", "import math\nimport") == [False] * 3
    digests()
