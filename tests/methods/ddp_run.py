"""Trains every method for one step on N processes; writes what that gives. Called by test_distributed.py."""

import os
from pathlib import Path
from typing import Any

import lightning as L
import torch
import torch.multiprocessing as multiprocessing
from lightning.fabric.plugins.environments.lightning import find_free_network_port
from methods.test_contract import LABELS, METHODS, method
from torch import nn
from torch.utils.data import DataLoader, DistributedSampler
from toy import ToyData, evaluation_of

BATCH = 12
DRAWS: dict[str, dict[str, float]] = {"hrem": {"dropout": 0.0}, "mcr_dgn": {"dropout": 0.0}}
DRAWS["vse_inf"] = {"token_dropout": 0.0}
"""Options that turn off what each process draws for itself."""
EVALUATED = ("dual_encoder", "sedra", "mcr_dgn")


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


def without_draws(name: str) -> Any:
    """A method as the tests of the contract make it, in which training draws nothing."""
    # At a usual rate, Adam makes whole steps of rounding errors, and banks and metrics would show them.
    model = method(name, **{"lr": 1e-12} | DRAWS.get(name, {}))
    for layer in model.modules():
        if isinstance(layer, nn.Dropout):
            layer.p = 0.0
    return model


def one_step(devices: int = 1, backbones: L.Callback | None = None, **options: Any) -> tuple[L.Trainer, Gradients]:
    """A trainer that takes one step on CPUs, and what keeps its gradients."""
    gradients = Gradients()
    callbacks: list[L.Callback] = [gradients] if backbones is None else [gradients, backbones]
    trainer = L.Trainer(
        accelerator="cpu",
        devices=devices,
        strategy="ddp" if devices > 1 else "auto",
        limit_val_batches=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=callbacks,
        **{"max_steps": 1} | options,
    )
    return trainer, gradients


def one_rank(rank: int, devices: int, folder: Path, port: int) -> None:
    torch.set_num_threads(1)
    # With the seed of an earlier test, Lightning would seed two processes once more, but not one.
    os.environ.pop("PL_GLOBAL_SEED", None)
    if devices > 1:  # as if a launcher had started the processes
        os.environ |= {"LOCAL_RANK": str(rank), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    results = {}
    for name in METHODS:
        model, (trainer, gradients) = without_draws(name), one_step(devices)
        data = InOrder(f"{folder}/data", labels=name in LABELS, copies=2, batch_size=BATCH // devices)
        trainer.fit(model, data)
        found: dict[str, Any] = {
            "loss": float(trainer.callback_metrics["train/loss"]),
            "gradients": gradients.found,
            "bank": {key: value for key, value in model.state_dict().items() if key.startswith("bank.")},
        }
        if name in EVALUATED:
            found["metrics"] = evaluation_of(trainer, without_draws(name), data).metrics
        results[name] = found
    if trainer.global_rank == 0:
        torch.save(results, folder / f"{devices}.pt")


def run(devices: int, folder: Path) -> dict[str, dict[str, Any]]:
    """What so many processes find, all forked: none imports everything anew."""
    arguments = (devices, folder, find_free_network_port())
    multiprocessing.start_processes(one_rank, arguments, nprocs=devices, start_method="fork")
    return torch.load(folder / f"{devices}.pt", weights_only=True)
