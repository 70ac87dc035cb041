"""Where a run took place: the commit is that of the checkout which holds the package, or none."""

import shutil
import subprocess
from pathlib import Path

import pytest

import itmbench
from itmbench.store.environment import git_state


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_only_a_repository_that_tracks_the_package_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def git(*arguments: str) -> str:
        name = ["-c", "user.name=n", "-c", "user.email=e@x"]
        command = ["git", "-C", str(tmp_path), *name, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    package = tmp_path / "environment" / "itmbench"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    monkeypatch.setattr(itmbench, "__file__", str(package / "__init__.py"))
    assert git_state() is None
    (tmp_path / "other.txt").touch()
    git("init")
    git("add", "other.txt")
    git("commit", "-m", "another repository")
    assert git_state() is None
    git("add", ".")
    git("commit", "-m", "the package")
    assert git_state() == {"commit": git("rev-parse", "HEAD"), "dirty": False}
    (package / "__init__.py").write_text("changed")
    assert git_state() == {"commit": git("rev-parse", "HEAD"), "dirty": True}
