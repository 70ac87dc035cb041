"""Two processes train and evaluate as one does with the same global batch."""

import subprocess
import sys
from pathlib import Path

import torch

RUN = Path(__file__).with_name("ddp_run.py")


def test_gradients_and_metrics_do_not_depend_on_the_number_of_devices(tmp_path: Path) -> None:
    for devices in (1, 2):
        command = [sys.executable, str(RUN), str(devices), str(tmp_path)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
    one, two = (torch.load(tmp_path / f"{devices}.pt", weights_only=True) for devices in (1, 2))
    assert one["gradients"].keys() == two["gradients"].keys()
    for name, gradient in one["gradients"].items():
        torch.testing.assert_close(two["gradients"][name], gradient, atol=1e-5, rtol=1e-4, msg=name)
    assert any(gradient.abs().max() > 1e-3 for gradient in one["gradients"].values())
    assert one["metrics"] == two["metrics"]
