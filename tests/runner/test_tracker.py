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
from small_benchmark import bench, write
from wandb.proto import wandb_internal_pb2

from itmbench import store
from itmbench.errors import InputError
from itmbench.runner import tracker
from itmbench.runner.run import run

BLOCK = 32768
"""Bytes of a block of a ``.wandb`` file, a log as LevelDB writes it."""


def tracked(folder: Path, *methods: str, **failing: Any) -> Path:
    """A benchmark of one epoch, or two if a method fails in the second, with a tracker."""
    spec = write(folder, *methods, epochs=1 + bool(failing), **failing)
    content = yaml.safe_load(spec.read_text())
    options = {"project": "itm", "save_dir": str(folder)}
    content["config"]["trainer"] |= {"logger": {"class_path": tracker.LOGGER, "init_args": options}}
    content["config"]["trainer"]["log_every_n_steps"] = 1
    spec.write_text(yaml.safe_dump(content, sort_keys=False))
    return spec


def records(folder: Path) -> list[Any]:
    """What ``wandb sync`` would send of a run: after 7 bytes, pieces of checksum (4), length (2), kind (1) and data."""
    content, at, found, data = next(folder.glob("*.wandb")).read_bytes(), 7, [], b""
    while at + 7 <= len(content):
        at += BLOCK - at % BLOCK if BLOCK - at % BLOCK < 7 else 0  # padding, too short for a piece
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
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a benchmark of two cells; the second failed."""
    root = tmp_path_factory.mktemp("tracked")
    (root / "there").touch()
    spec = tracked(root, "m", "bad", bad={"while_there": str(root / "there"), "how": "nan"})
    environment = {key: value for key, value in os.environ.items() if not key.startswith("WANDB_")}
    # Nothing listens on port 9 of this machine, which is how no network looks.
    environment |= {"WANDB_BASE_URL": "http://127.0.0.1:9", "HOME": str(root)}
    environment["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])
    command = [sys.executable, "-m", "itmbench", *bench(spec, root / "results")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    return root


@pytest.fixture(scope="module")
def runs(root: Path) -> dict[str, list[Any]]:
    """The records of each run by its name."""
    by_run = [records(folder) for folder in (root / "wandb").glob("offline-run-*")]
    return {next(record.run.display_name for record in run if record.HasField("run")): run for run in by_run}


def test_a_run_a_cell_named_after_it_and_grouped_by_benchmark(runs: dict[str, list[Any]]) -> None:
    assert set(runs) == {"toy/m/seed0", "toy/bad/seed0"}
    starts = [next(record.run for record in run if record.HasField("run")) for run in runs.values()]
    assert {(start.run_group, start.job_type, start.project) for start in starts} == {("small", "toy", "itm")}
    codes = {name: [r.exit.exit_code for r in run if r.HasField("exit")] for name, run in runs.items()}
    assert codes == {"toy/m/seed0": [0], "toy/bad/seed0": [1]}


def test_curves_config_summary_and_result_are_in_it(root: Path, runs: dict[str, list[Any]]) -> None:
    run, [(_, result)] = runs["toy/m/seed0"], store.results(root / "results")
    logged = {"/".join(item.nested_key) or item.key for r in run if r.HasField("history") for item in r.history.item}
    assert {"train/loss", "val/objective"} <= logged
    config = {item.key or item.nested_key[0] for r in run if r.HasField("config") for item in r.config.update}
    assert {"model", "data", "trainer", "seed_everything"} <= config
    summary = {
        item.key or item.nested_key[0]: json.loads(item.value_json)
        for r in run if r.HasField("summary") for item in r.summary.update
    }  # fmt: skip
    assert (summary["rSum"], summary["key"]) == (result.metrics["rSum"], result.key)
    requests = [r.request.log_artifact.artifact for r in run if r.HasField("request")]
    [artifact] = [a for a in [*requests, *(r.artifact for r in run if r.HasField("artifact"))] if a.name]
    assert (artifact.type, artifact.name) == ("result", f"result-{result.key}")
    files = sorted(entry.path for entry in artifact.manifest.contents)
    assert files == ["config.yaml", "per_query.parquet", "result.json"]


def test_an_outage_at_the_end_fails_no_cell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def outage(*arguments: Any, **options: Any) -> None:
        raise ConnectionError("the server is gone")

    wandb.teardown()  # it keeps the variables of its first use in this process
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setattr(wandb.sdk.wandb_run.Run, "log_artifact", outage)
    assert run(tracked(tmp_path, "m"), tmp_path / "results") == []
    assert [result.method for _, result in store.results(tmp_path / "results")] == ["m"]
    assert "Weights & Biases: ConnectionError (the server is gone)" in caplog.text and wandb.run is None


@pytest.mark.parametrize(
    ("name", "value"), [("MODE", "typo"), ("RUN_ID", "a/b"), ("BASE_URL", "http://x:99999"), ("SILENT", "maybe")]
)
def test_settings_that_the_tracker_refuses_are_found_while_planning(
    name: str, value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"WANDB_{name}", value)
    with pytest.raises(InputError, match=r"^m on toy: trainer.logger: .*; correct the variables WANDB_…$"):
        run(tracked(tmp_path, "m"), tmp_path / "results")
    assert not (tmp_path / "results" / store.RUNNING / "small").exists()
