"""Evaluates and trains one step on N processes; writes gradients and metrics. Run by test_distributed.py."""

import sys
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch.utils.data import DataLoader, DistributedSampler

sys.path.insert(0, str(Path(__file__).parents[1]))
from toy import ToyData, evaluation_of, toy_encoders

from itmbench.methods.dual_encoder import DualEncoder


class InOrder(ToyData):
    """The same pairs in the same order, however many processes share them."""

    def train_dataloader(self) -> DataLoader[Any]:
        loader, trainer = super().train_dataloader(), self.trainer
        assert trainer is not None
        sampler: DistributedSampler[Any] = DistributedSampler(
            loader.dataset, num_replicas=trainer.world_size, rank=trainer.global_rank, shuffle=False
        )
        return DataLoader(loader.dataset, self.batch_size, sampler=sampler, collate_fn=loader.collate_fn)


class Gradients(L.Callback):
    """Keeps the gradients of the first step."""

    def on_before_optimizer_step(self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: object) -> None:
        self.found = {name: p.grad.clone() for name, p in pl_module.named_parameters() if p.grad is not None}


def main(devices: int, folder: str) -> None:
    L.seed_everything(0)
    model = DualEncoder(dim=32, **toy_encoders())  # type: ignore[arg-type]
    data = InOrder(f"{folder}/data", copies=2, batch_size=12 // devices)
    gradients = Gradients()
    trainer = L.Trainer(
        accelerator="cpu",
        devices=devices,
        strategy="ddp" if devices > 1 else "auto",
        max_steps=1,
        limit_val_batches=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[gradients],
    )
    evaluation = evaluation_of(trainer, model, data)
    trainer.fit(model, data)
    if trainer.global_rank == 0:
        torch.save({"gradients": gradients.found, "metrics": evaluation.metrics}, f"{folder}/{devices}.pt")


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
