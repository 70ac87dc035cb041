"""A checkpoint from elsewhere cannot run code: it is read as tensors and plain values, or not at all."""

import os
from pathlib import Path

import pytest
import torch
from toy import toy_arguments

from itmbench.cli.main import main


class Intruder:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.path),)


@pytest.fixture
def trap(tmp_path: Path) -> Path:
    """Where the code in ``best.ckpt`` would leave its trace."""
    torch.save({"state_dict": {}, "hyper_parameters": Intruder(tmp_path / "trace")}, tmp_path / "best.ckpt")
    return tmp_path / "trace"


def test_the_trap_works(trap: Path) -> None:
    torch.load(trap.with_name("best.ckpt"), weights_only=False)
    assert trap.exists()


@pytest.mark.parametrize("command", ["fit", "test"])
def test_no_command_runs_code_of_a_checkpoint(trap: Path, command: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = trap.with_name("best.ckpt")
    assert main([command, *toy_arguments(trap.parent, f"--ckpt_path={path}")]) == 2
    assert not trap.exists()
    assert f"itmbench: {path}: damaged, or contains pickled code" in capsys.readouterr().err
