"""A method and a dataset of one's own in a table; and a benchmark that is done, answered without importing a method."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from own_features import write_features

from itmbench.cli.main import main
from itmbench.runner.done import is_done
from itmbench.runner.spec import load_cells

METHOD = """
from itmbench.methods.dual_encoder import DualEncoder


class MyMatcher(DualEncoder):
    def __init__(self, dim: int = 8, **kwargs):
        super().__init__(dim=dim, **kwargs)
"""
SPEC = """
name: own
datasets: {mine: data.yaml}
methods: {theirs: theirs.yaml, mine: mine.yaml}
seeds: [0]
config:
  trainer: {max_epochs: 1, accelerator: cpu, logger: false, enable_progress_bar: false}
  model:
    init_args:
      image: &encoder {class_path: FeatureEncoder, init_args: {width: 16}}
      text: *encoder
"""
COMMAND = ["bench", "own.yaml", "--results", "results"]
IMPORTED = (
    "import sys; from itmbench.cli.main import main; code = main(sys.argv[1:]); print(code, 'lightning' in sys.modules)"
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with all that a benchmark of one's own takes; the working directory of the test."""
    write_features(tmp_path / "features")
    contents = {
        "my_method.py": METHOD,
        "my_helper.py": "DIM = 8",
        "own.yaml": SPEC,
        "data.yaml": "data: {class_path: FeatureFolder, init_args: {root: features, batch_size: 8}}",
        "theirs.yaml": "model: {class_path: DualEncoder, init_args: {dim: 8}}",
        "mine.yaml": "model: {class_path: my_method.MyMatcher}",
    }
    for name, content in contents.items():
        (tmp_path / name).write_text(content)
    monkeypatch.chdir(tmp_path)
    sys.modules.pop("my_method", None)  # of another test's folder
    return tmp_path


def run_alone(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A command in a process of its own that finds itmbench, but not the folder."""
    paths = [path for path in sys.path if path and Path(path).resolve() != folder]
    script = folder.parent / "run.py"
    script.write_text(IMPORTED)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    return subprocess.run(
        [sys.executable, str(script), *arguments], cwd=folder, env=environment, capture_output=True, text=True
    )


def test_a_file_and_a_folder_of_ones_own_are_in_the_table_and_not_run_again(folder: Path) -> None:
    first = run_alone(folder, *COMMAND)
    assert first.stdout.endswith("0 True\n"), first.stderr
    table = [line.split() for line in first.stdout.splitlines()]
    assert {"theirs", "mine"} <= {words[0] for words in table if words}
    again = run_alone(folder, *COMMAND)
    assert again.stdout.endswith("0 False\n"), again.stderr  # no method was imported
    assert again.stderr.count("done before") == 2
    rows = [[line for line in run.stdout.splitlines() if line.startswith(("theirs", "mine"))] for run in (first, again)]
    assert rows[0] == rows[1] != []


def change(path: str, old: str, new: str) -> Callable[[], object]:
    def apply() -> None:
        before = Path(path).read_text()
        assert old in before
        Path(path).write_text(before.replace(old, new))

    return apply


def other_features() -> None:
    features = np.load("features/texts.npy")
    features[0] += 1
    np.save("features/texts.npy", features)


CHANGES = {
    "the benchmark": change("own.yaml", "max_epochs: 1", "max_epochs: 2"),
    "a config": change("theirs.yaml", "dim: 8", "dim: 9"),
    "a method outside": change("my_method.py", "dim: int = 8", "dim: int = 9"),
    "a module beside it": change("my_helper.py", "8", "9"),
    "the data": other_features,
    "a result's key": change("results/own/mine/mine/seed0/result.json", '"key": "', '"key": "0'),
    "a result that is gone": lambda: Path("results/own/mine/mine/seed0/result.json").unlink(),
    "what was remembered": lambda: next(Path("results/.plans").glob("*.json")).write_text("{"),
}


def test_whatever_changes_is_planned_anew(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(folder))
    assert main(COMMAND) == 0
    assert is_done(load_cells("own.yaml"), Path("results"))
    assert not is_done(load_cells("own.yaml", "method=mine"), Path("results"))  # another choice
    kept = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for what, apply in CHANGES.items():
        apply()
        assert not is_done(load_cells("own.yaml"), Path("results")), what
        for path, content in kept.items():
            if not path.exists() or path.read_bytes() != content:
                path.write_bytes(content)
        assert is_done(load_cells("own.yaml"), Path("results")), what


def test_configs_that_name_files_are_planned_every_time(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(folder))
    encoder = "{class_path: FeatureEncoder, init_args: {width: 16}}"
    (folder / "encoder.yaml").write_text(encoder)
    change("own.yaml", f"&encoder {encoder}", "encoder.yaml")()
    change("own.yaml", "*encoder", encoder)()
    assert main(COMMAND) == 0
    assert not is_done(load_cells("own.yaml"), Path("results"))
