"""Runs of Weights & Biases, as they lie on disk without a key and a network, ready for ``wandb sync``."""

import json
import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import wandb
import yaml
from small_benchmark import write
from wandb.proto import wandb_internal_pb2

from itmbench import store
from itmbench.runner import tracker as tracker_module
from itmbench.runner.run import run

HERE = Path(__file__).parent


BLOCK = 32768
"""Bytes of a block of a ``.wandb`` file, a log as LevelDB writes it."""


def records(folder: Path) -> list[Any]:
    """What ``wandb sync`` would send of a run: after 7 bytes, pieces of checksum (4), length (2), kind (1) and data."""
    [path] = folder.glob("*.wandb")
    content, at, found, data = path.read_bytes(), 7, [], b""
    while at + 7 <= len(content):
        if BLOCK - at % BLOCK < 7:  # too short for a piece: padding
            at += BLOCK - at % BLOCK
            continue
        length, kind = struct.unpack_from("<HB", content, at + 4)
        data += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last piece
            record = wandb_internal_pb2.Record()  # type: ignore[attr-defined]
            record.ParseFromString(data)
            found.append(record)
            data = b""
    return found


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[list[Any]]:
    """Of two cells; the second failed."""
    root = tmp_path_factory.mktemp("tracked")
    environment = {key: value for key, value in os.environ.items() if not key.startswith("WANDB_")}
    # Nothing listens on port 9 of this machine, which is how no network looks.
    environment |= {"WANDB_BASE_URL": "http://127.0.0.1:9", "HOME": str(root)}
    environment["PYTHONPATH"] = os.pathsep.join([str(HERE.parent), *sys.path])
    command = [sys.executable, str(HERE / "tracked_cells.py"), str(root)]
    subprocess.run(command, env=environment, capture_output=True, check=True, text=True)
    found = [records(folder) for folder in (root / "wandb").glob("offline-run-*")]
    return sorted(found, key=lambda of: next(r.run.display_name for r in of if r.HasField("run")))


def test_a_run_a_cell_named_after_it_and_grouped_by_benchmark(runs: list[list[Any]]) -> None:
    starts = [next(record.run for record in of if record.HasField("run")) for of in runs]
    assert [start.display_name for start in starts] == [f"toy/dual/seed{seed}" for seed in range(2)]
    assert {(start.run_group, start.job_type, start.project) for start in starts} == {("sweep", "toy", "itm")}


def test_curves_config_summary_and_result_are_in_it(runs: list[list[Any]]) -> None:
    of = runs[0]
    logged = {"/".join(item.nested_key) or item.key for r in of if r.HasField("history") for item in r.history.item}
    assert {"train/loss", "val/objective"} <= logged
    config = {item.key or item.nested_key[0] for r in of if r.HasField("config") for item in r.config.update}
    assert {"model", "data", "trainer", "seed_everything"} <= config
    summary = {
        item.key or item.nested_key[0]: json.loads(item.value_json)
        for r in of if r.HasField("summary") for item in r.summary.update
    }  # fmt: skip
    assert (summary["rSum"], summary["key"]) == (100, "toy-dual_infonce-0")
    requests = [r.request.log_artifact.artifact for r in of if r.HasField("request")]
    [artifact] = [a for a in [*requests, *(r.artifact for r in of if r.HasField("artifact"))] if a.name]
    assert (artifact.type, artifact.name) == ("result", "result-toy-dual_infonce-0")
    files = sorted(entry.path for entry in artifact.manifest.contents)
    assert files == ["config.yaml", "per_query.parquet", "result.json"]


def test_an_outage_at_the_end_fails_no_cell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    spec = write(tmp_path, "m", epochs=1)
    content = yaml.safe_load(spec.read_text())
    tracker = {"class_path": tracker_module.LOGGER, "init_args": {"save_dir": str(tmp_path)}}
    content["config"]["trainer"]["logger"] = tracker
    spec.write_text(yaml.safe_dump(content))

    def outage(*arguments: Any, **options: Any) -> None:
        raise ConnectionError("the server is gone")

    monkeypatch.setattr(wandb.sdk.wandb_run.Run, "log_artifact", outage)
    assert run(spec, tmp_path / "results") == []
    assert [result.method for _, result in store.results(tmp_path / "results")] == ["m"]
    assert "Weights & Biases: ConnectionError (the server is gone)" in caplog.text and wandb.run is None


def test_the_run_of_a_failed_cell_ends_as_failed(runs: list[list[Any]]) -> None:
    codes = [[record.exit.exit_code for record in of if record.HasField("exit")] for of in runs]
    assert codes == [[0], [1]]
