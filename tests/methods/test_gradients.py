"""Every weight that is trained gets a gradient in every step: many devices wait for all of them."""

from pathlib import Path

import lightning as L
import pytest
import yaml

from itmbench.runner.lightning import CellCLI
from itmbench.runner.spec import load_cells

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
CELLS = {
    f"{spec}/{cell.method}": cell
    for spec in ("mini", "captions", "labels", "ablations/sedra", "ablations/mcr_dgn")
    for cell in load_cells(BENCHMARKS / f"{spec}.yaml", "seed=0")
}


class Ungraded(L.Callback):
    """Collects the names of weights without a gradient."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def on_after_backward(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.names |= {name for name, p in pl_module.named_parameters() if p.requires_grad and p.grad is None}


@pytest.mark.parametrize("name", CELLS)
def test_every_trained_weight_gets_a_gradient_in_every_step(tmp_path: Path, name: str) -> None:
    config = {"model": CELLS[name].config["model"]}
    config["data"] = {"class_path": "toy.ToyData", "init_args": {"root": str(tmp_path), "labels": True, "copies": 2}}
    cli = CellCLI(yaml.safe_load(yaml.safe_dump(config)))
    found = Ungraded()
    trainer = L.Trainer(
        accelerator="cpu",
        max_epochs=2,
        limit_train_batches=1,
        limit_val_batches=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[found],
    )
    trainer.fit(cli.make_model(), cli.data)
    assert not found.names
