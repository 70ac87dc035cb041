"""What saves memory or time in training changes neither losses nor gradients."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from methods.ddp_run import BATCH, InOrder, one_step, without_draws
from own_features import write_features

from itmbench.data.datasets import FeatureFolder
from itmbench.encoders import FeatureEncoder, ScratchTextEncoder, TimmImageEncoder
from itmbench.errors import InputError
from itmbench.methods.dual_encoder import DualEncoder
from itmbench.runner.backbones import Backbones

Gradients = dict[str, torch.Tensor]


def step(folder: Path, name: str, batch_size: int = BATCH, **options: Any) -> tuple[float, Gradients]:
    """Loss and gradients of the first step."""
    trainer, gradients = one_step(**options)
    trainer.fit(without_draws(name), InOrder(str(folder), name == "mcr_dgn", copies=2, batch_size=batch_size))
    return float(trainer.callback_metrics["train/loss"]), gradients.found


@pytest.mark.parametrize("name", ["sedra", "mcr_dgn"])
def test_accumulated_gradients_are_the_mean_of_those_of_the_parts(tmp_path: Path, name: str) -> None:
    """Each part sees its own negatives only, so that they are not those of the whole batch."""
    _, accumulated = step(tmp_path, name, BATCH // 2, accumulate_grad_batches=2)
    model, data = without_draws(name), InOrder(str(tmp_path), name == "mcr_dgn", copies=2, batch_size=BATCH // 2)
    trainer, _ = one_step(max_steps=0)
    trainer.fit(model, data)
    parts = []
    for batch, _ in zip(data.train_dataloader(), range(2), strict=False):
        part = copy.deepcopy(model).train()
        part.trainer = model.trainer
        part.training_loss(batch).backward()
        parts.append({key: weight.grad for key, weight in part.named_parameters() if weight.grad is not None})
    assert accumulated.keys() == parts[0].keys() == parts[1].keys()
    for key, gradient in accumulated.items():
        torch.testing.assert_close(gradient, (parts[0][key] + parts[1][key]) / 2, atol=1e-6, rtol=1e-4, msg=key)
    _, whole = step(tmp_path, name)
    assert max((accumulated[key] - whole[key]).abs().max().item() for key in whole) > 1e-3


@pytest.mark.parametrize("name", ["sedra", "mcr_dgn"])
@pytest.mark.parametrize("options", [{"checkpoint": True}, {"compile": "aot_eager"}])
def test_backbones_give_the_same_loss_and_gradients(tmp_path: Path, name: str, options: dict[str, Any]) -> None:
    torch.compiler.reset()
    counters = torch._dynamo.utils.counters
    counters.clear()
    plain, other = step(tmp_path, name), step(tmp_path, name, backbones=Backbones(**options))
    assert (counters["frames"]["ok"] >= 2) == ("compile" in options)  # image and text encoder
    assert other[0] == pytest.approx(plain[0], rel=1e-6) and other[1].keys() == plain[1].keys()
    for key, gradient in plain[1].items():
        torch.testing.assert_close(other[1][key], gradient, atol=1e-6, rtol=1e-4, msg=key)


def test_checkpointed_backbones_keep_less_for_the_backward_pass(tmp_path: Path) -> None:
    kept = []
    for checkpoint in (False, True):
        model, size = DualEncoder(image=TimmImageEncoder(), text=ScratchTextEncoder()), 0
        trainer, _ = one_step(backbones=Backbones(checkpoint=checkpoint))
        data = InOrder(str(tmp_path), copies=2, batch_size=BATCH)

        def measured(tensor: torch.Tensor) -> torch.Tensor:
            nonlocal size
            size += tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(measured, lambda tensor: tensor):
            trainer.fit(model, data)
        kept.append(size)
    assert kept[1] < 0.5 * kept[0]


def test_what_backbones_cannot_do_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="torch has no backend 'cudagraph'; set compile to one of "):
        Backbones(compile="cudagraph")
    trainer, _ = one_step(backbones=Backbones(checkpoint=True))
    features = write_features(tmp_path, labels=False)
    model = DualEncoder(dim=8, image=FeatureEncoder(), text=FeatureEncoder())
    with pytest.raises(InputError, match="FeatureEncoder cannot compute its blocks again; leave out checkpoint"):
        trainer.fit(model, FeatureFolder(str(features)))
