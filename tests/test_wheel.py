"""What is published works without the checkout: built, installed into another folder, and run there."""

import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pandas as pd
import pytest
from own_features import write_features

import itmbench

ROOT = Path(__file__).parents[1]


def run(*command: str | Path, cwd: Path, **env: str) -> str:
    done = subprocess.run(command, cwd=cwd, env=os.environ | env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist and the wheel."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "hatchling", "build", "--directory", folder, cwd=ROOT)
    return folder


def test_the_sdist_has_every_benchmark_file_and_the_version(dist: Path) -> None:
    (sdist,) = dist.glob(f"itmbench-{itmbench.__version__}.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {path.relative_to(ROOT).as_posix() for path in (ROOT / "benchmarks").rglob("*.yaml")} <= names


def test_the_installed_wheel_runs_a_benchmark_by_name(dist: Path, tmp_path: Path) -> None:
    (wheel,) = dist.glob("*.whl")
    target, work = tmp_path / "target", tmp_path / "work"
    work.mkdir()
    pip = (sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target")
    run(*pip, target, wheel, cwd=work)
    installed = {path.relative_to(target / "itmbench") for path in (target / "itmbench/benchmarks").rglob("*.yaml")}
    assert installed == {path.relative_to(ROOT) for path in (ROOT / "benchmarks").rglob("*.yaml")}
    command = (sys.executable, target / "bin" / "itmbench")
    env = {"PYTHONPATH": str(target)}
    assert str(target / "itmbench" / "benchmarks") in run(*command, "list", cwd=work, **env)
    write_features(work / "data" / "features")
    for method in ("dual_infonce", "cca"):
        assert "features" in run(*command, "bench", "features", "--only", f"method={method}", cwd=work, **env)
    frame = itmbench.load_results(work / "results")
    assert isinstance(frame, pd.DataFrame) and sorted(frame["method"]) == ["cca", "dual_infonce"]
    assert (frame["mAP"] > 0.3).all()
    assert (work / "results" / "index.html").exists()
