"""A benchmark with frozen pretrained encoders: all its cells share what these give, and say what it cost."""

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import yaml
from pretrained import minilm
from safetensors.torch import save_file
from toy import TOY_MODEL

from itmbench.cli.main import main


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A config of `itmbench fit` on the toy, both encoders frozen."""
    monkeypatch.setenv("ITMBENCH_CACHE", str(tmp_path / "cache"))
    args = TOY_MODEL["init_args"]["image"]["init_args"]
    weights = tmp_path / "vit.safetensors"
    save_file(
        timm.create_model("vit_tiny_patch16_224", img_size=32, num_classes=0, **args["model_args"]).state_dict(),
        weights,
    )
    frozen = {"freeze": True, "centre": True, "feature_dropout": 0.1}
    encoders: dict[str, Any] = {
        "image": {"class_path": "TimmImageEncoder", "init_args": args | {"checkpoint": str(weights)} | frozen},
        "text": {"class_path": "PretrainedTextEncoder", "init_args": {"name": minilm()} | frozen},
    }
    return {
        "data": {"class_path": "toy.ToyData", "init_args": {"root": str(tmp_path / "toy"), "copies": 2}},
        "model": {"class_path": "SEDRA", "init_args": {"dim": 32, "lr": 0.003, **encoders}},
        "trainer": {"max_epochs": 2, "accelerator": "cpu", "logger": False, "enable_progress_bar": False},
    }


def test_cells_share_what_frozen_encoders_give(
    tmp_path: Path, config: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    for part in ("data", "model"):
        (tmp_path / f"{part}.yaml").write_text(yaml.safe_dump({part: config[part]}))
    spec = {
        "name": "frozen",
        "datasets": {"toy": "data.yaml"},
        "methods": {"sedra": "model.yaml"},
        "seeds": [0, 1],
        "config": {"trainer": config["trainer"]},
    }
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(spec))
    command = ["bench", str(tmp_path / "spec.yaml"), "--results", str(tmp_path / "results")]
    assert main([*command, "--dry-run"]) == 0
    assert not (tmp_path / "cache" / "frozen").exists()  # planning encodes nothing
    assert main(command) == 0
    capsys.readouterr()
    cells = [tmp_path / "results" / "frozen" / "toy" / "sedra" / f"seed{seed}" for seed in (0, 1)]
    logs = [(cell / "log.txt").read_text() for cell in cells]
    assert "images once with the frozen TimmImageEncoder" in logs[0]
    assert "texts once with the frozen PretrainedTextEncoder" in logs[0]
    assert "once with the frozen" not in logs[1]
    first, second = (json.loads((cell / "result.json").read_text()) for cell in cells)
    assert first["metrics"]["rSum"] > 1.2 * first["metrics"]["chance/rSum"]  # the heads have learned
    assert first["pretraining"] == "captions" and first["audit"] == second["audit"] | first["audit"]
    assert all(finding["passed"] for finding in first["audit"].values())
    # Six layers of 384 numbers: what was read from the disk counts as if it had been computed.
    assert second["flops"]["text"] > 2 * 6 * 12 * 384**2 and second["flops"] == first["flops"]
    assert max(result["throughput"]["texts_per_second"] for result in (first, second)) < 20_000


def test_the_leak_audit_sees_exchanged_contents(
    tmp_path: Path, config: dict[str, Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config | {"seed_everything": 0}))
    assert main(["fit", "--config", "config.yaml", "--trainer.default_root_dir", str(tmp_path)]) == 0
    best = next(tmp_path.rglob("best.ckpt"))
    assert main(["audit", "--config", "config.yaml", "--ckpt_path", str(best)]) == 0
    printed = capsys.readouterr().out
    assert printed.count("pass") == 10 and "FAIL" not in printed
