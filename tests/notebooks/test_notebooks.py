"""The notebooks run on small stores, and show what the package computes."""

import os
import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
import yaml
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from results_store import write_store
from toy import TOY_MODEL

from itmbench import load_results
from itmbench.cli.main import main
from itmbench.report.tables import tables

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
TOY: dict[str, Any] = {"class_path": "toy.ToyData", "init_args": {"copies": 2}}


def run(name: str, results: Path, monkeypatch: pytest.MonkeyPatch, **replaced: str) -> str:
    """Execute a notebook on a store and return all of its output as text; constants in it may be replaced."""
    monkeypatch.setenv("ITMBENCH_RESULTS", str(results))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(ROOT / "tests")]))
    monkeypatch.setenv("PYTHONWARNINGS", "ignore:IProgress not found")  # by tqdm, where there are no widgets
    notebook = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
    for cell in notebook.cells:
        for constant, value in replaced.items():
            cell.source = re.sub(rf"^{constant} = .*", f"{constant} = {value!r}", cell.source, flags=re.MULTILINE)
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(ROOT / "notebooks")}}).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert not [output for output in outputs if output.get("name") == "stderr"]
    return "\n".join(str(output.get("data", output.get("text"))) for output in outputs)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of the toy in the places of `make bench`: two methods of captions, MCR-DGN with labels."""
    folder = tmp_path_factory.mktemp("trained")
    for name, labels in (("captions", False), ("labels", True)):
        init_args = {**TOY["init_args"], "root": str(folder / "toy"), "labels": labels}
        (folder / f"{name}.yaml").write_text(yaml.safe_dump({"data": {**TOY, "init_args": init_args}}))
    methods = {"sedra": "SEDRA", "dual_infonce": "DualEncoder", "mcr_dgn": "MCRDGN"}
    for name, method in methods.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump({"model": TOY_MODEL | {"class_path": method}}))
    quiet = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    spec = {
        "name": "mini",
        "datasets": {"flickr30k-mini": "captions.yaml", "mirflickr-mini": "labels.yaml"},
        "methods": {name: f"{name}.yaml" for name in methods},
        "seeds": [0],
        "config": {"trainer": quiet | {"max_epochs": 6}},
        "leave_out": [
            {"dataset": "flickr30k-mini", "method": "mcr_dgn"},
            {"dataset": "mirflickr-mini", "method": "sedra"},
            {"dataset": "mirflickr-mini", "method": "dual_infonce"},
        ],
    }
    (folder / "mini.yaml").write_text(yaml.safe_dump(spec, sort_keys=False))
    assert main(["bench", str(folder / "mini.yaml"), "--results", str(folder / "results")]) == 0
    return folder / "results"


def test_results_are_tables_plots_and_differences(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results = write_store(tmp_path)
    text = run("01_results", results, monkeypatch)
    shown = tables(load_results(results))
    for table in shown:
        assert table.title in text
        assert [number for number in table.cells[table.main_columns].to_numpy().ravel() if number not in text] == []
    assert text.count("image/png") == len(shown)
    assert text.count("better") + text.count("not distinguishable") >= 5  # two caption metrics, three label metrics
    assert "rank correlation" in text


def test_two_methods_are_compared_query_by_query(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = run("02_compare_two_methods", trained, monkeypatch)
    means = load_results(trained).dropna(subset="rSum").set_index("method")["rSum"].sort_values(ascending=False)
    assert str(tuple(means.index)) in text and len(means) == 2
    assert text.count("image/png") == 2 and "untested" in text
    counts = re.search(r"i2t +(\d+) +(\d+) +(\d+)\nt2i +(\d+) +(\d+) +(\d+)", text.replace("\\n", "\n"))
    assert counts and sum(map(int, counts.groups())) == 16 + 32


def test_methods_are_looked_into(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = run("03_look_inside", trained, monkeypatch)
    assert text.count("image/png") == 2 and re.search(r"right text -?[\d.]+, wrong text -?[\d.]+", text)
    for word in ("global", "fused", "local", "share", "found", "by the graph"):
        assert word in text


def test_a_method_of_ones_own_is_in_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toy = {**TOY, "init_args": {**TOY["init_args"], "root": str(tmp_path / "toy"), "copies": 4}}
    (tmp_path / "data.yaml").write_text(yaml.safe_dump({"data": toy}))
    text = run("04_your_method", tmp_path, monkeypatch, DATA=str(tmp_path / "data.yaml"))
    assert "Writing my_method.py" in text and "[]" in text
    assert re.search(r"gated.*rSum|rSum.*gated", text, re.DOTALL) and "dual_infonce" in text


def test_files_and_matrices_become_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = run("05_your_data", tmp_path, monkeypatch)
    recall = re.search(r"t2i/R@10 +([\d.]+)", text.replace("\\n", "\n"))
    assert recall and float(recall[1]) > 0.5  # chance is 0.25
    assert text.count("image/png") == 1 and "240" in text
    assert "500 i2t and 2,500 t2i queries" in text and "p <= 0.0002): better" in text


def test_without_results_they_say_what_to_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CellExecutionError, match="no results yet; run a benchmark first"):
        run("01_results", tmp_path, monkeypatch)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_they_are_committed_without_outputs(path: Path) -> None:
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    assert not [cell for cell in cells if cell.outputs or cell.execution_count]
