from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from results_store import write_store

from itmbench import load_results
from itmbench.report.tables import tables

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "results.ipynb"


def run(results: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Execute the notebook on a store and return all of its output as text."""
    monkeypatch.setenv("ITMBENCH_RESULTS", str(results))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(NOTEBOOK.parent)}}).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert not [output for output in outputs if output.get("name") == "stderr"]
    return "\n".join(str(output.get("data", output.get("text"))) for output in outputs)


def test_it_shows_tables_plots_and_differences(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results = write_store(tmp_path)
    text = run(results, monkeypatch)
    shown = tables(load_results(results))
    for table in shown:
        assert table.title in text
        assert [number for number in table.cells[table.main_columns].to_numpy().ravel() if number not in text] == []
    assert text.count("image/png") == len(shown)
    assert "500 i2t and 2,500 t2i queries" in text and "p <= 0.0002): better" in text
    assert text.count("better") + text.count("not distinguishable") >= 5  # two caption metrics, three label metrics
    assert "rank correlation" in text


def test_without_results_it_says_what_to_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CellExecutionError, match="no results yet; run a benchmark first"):
        run(tmp_path, monkeypatch)


def test_it_is_committed_without_outputs() -> None:
    cells = [cell for cell in nbformat.read(NOTEBOOK, as_version=4).cells if cell.cell_type == "code"]
    assert not [cell for cell in cells if cell.outputs or cell.execution_count]
