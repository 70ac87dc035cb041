"""A benchmark as jobs of a real Slurm: submitted, pre-empted, requeued, with the results of an uninterrupted run."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from slurm_here import missing, said, slurm_here, wait_until
from small_benchmark import content, unfinished, write

from itmbench import store
from itmbench.cli.main import main

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.skipif(
        bool(missing()),
        reason=f"needs Slurm ({', '.join(missing())}); `make test-slurm` installs it on Debian",
    ),
]


@pytest.fixture(scope="module")
def slurm() -> Iterator[dict[str, str]]:
    with slurm_here() as variables:
        yield variables


@pytest.fixture(autouse=True)
def _in_jobs(slurm: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs find the methods of these tests, and commands find Slurm."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]), prepend=os.pathsep)
    monkeypatch.setenv("SLURM_CONF", slurm["SLURM_CONF"])


@pytest.mark.parametrize("devices", [1, 2])
def test_jobs_that_are_preempted_give_what_an_uninterrupted_run_gives(
    tmp_path: Path, slurm: dict[str, str], capsys: pytest.CaptureFixture[str], devices: int
) -> None:
    held = tmp_path / "held"
    methods = ("a", "b")[: 3 - devices]  # so that two processors are busy
    waiting: dict[str, Any] = {name: {"while_there": str(held), "how": "wait"} for name in methods}
    spec = write(tmp_path, *methods, epochs=4, **waiting)
    config = yaml.safe_load(spec.read_text())
    config["config"]["trainer"]["devices"] = devices
    spec.write_text(yaml.safe_dump(config, sort_keys=False))
    assert main(["bench", str(spec), "--results", str(tmp_path / "here")]) == 0
    capsys.readouterr()

    results = tmp_path / "results"
    command = ["bench", str(spec), "--results", str(results), "--launcher", "slurm", "--devices", "2"]
    held.touch()
    assert main(command) == 0
    job = capsys.readouterr().err.partition("job ")[2].partition(":")[0]
    try:
        wait_until(lambda: len(list((results / store.RUNNING).rglob("last.ckpt"))) == len(methods), "the first epoch")
        urgent = said(["sbatch", "--parsable", "-phigh", "-c2", "-o/dev/null", "--wrap=sleep 1"], slurm)
        wait_until(lambda: "JobState=COMPLETED" in said(["scontrol", "show", "job", urgent], slurm), "the urgent job")
        assert not list(results.rglob("result.json")) and not list(results.rglob("failure.json"))
    finally:
        held.unlink()
    wait_until(lambda: "COMPLETED" in said(["squeue", "-h", "-tall", "-o%T", "-j", job], slurm), "the jobs")
    wait_until(lambda: not said(["squeue", "-h", "-j", job], slurm), "the jobs")
    jobs = said(["scontrol", "show", "job", job], slurm)
    assert jobs.count("Restarts=1") == jobs.count("JobState=COMPLETED") == len(methods), jobs

    assert content(results) == content(tmp_path / "here") and len(content(results)) == len(methods)
    assert not [path for path in unfinished(results) if path.suffix not in (".txt", ".json")]
    for output in (results / store.RUNNING).glob("slurm-*.txt"):  # of both runs of the job
        lines = output.read_text()
        assert (
            lines.count("running") == 2
            and "DUE TO PREEMPTION" in lines
            and "failed" not in lines
            and "srun" not in lines
        ), lines
    assert main(command) == 0 and "done before" in capsys.readouterr().err


def test_what_slurm_refuses_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SBATCH_PARTITION", "night")
    assert main(["bench", str(write(tmp_path, "m")), "--results", str(tmp_path), "--launcher", "slurm"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("itmbench: --launcher slurm: ") and "invalid partition" in error and error.count("\n") == 1
