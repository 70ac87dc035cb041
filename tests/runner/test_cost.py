"""What a run costs."""

from types import SimpleNamespace
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import Timer
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from itmbench.runner import cost as measure
from itmbench.runner.callbacks import CHECK_EVERY, StopWhenDiverged
from itmbench.runner.running import Diverged


def test_reading_the_best_checkpoint_for_the_test_counts_nothing_twice() -> None:
    before, meter = measure.Meter(), measure.Meter()
    before.items["train"], before._before = 8, 100.0
    meter.load_state_dict(before.state_dict())  # a training that goes on
    assert meter.items["train"] == 8 and 100 <= meter.elapsed() < 110
    meter.load_state_dict(before.state_dict() | {"elapsed": 500.0})  # the test after it
    assert meter.elapsed() < 110


def test_operations_that_are_done_once_are_no_items() -> None:
    done: list[Tensor] = []

    def encode(inputs: dict[str, Tensor]) -> Tensor:
        if not done:
            done.append(torch.ones(50, 50) @ torch.ones(50, 50))
        return inputs["x"] @ torch.ones(3, 5)

    model = SimpleNamespace(encode_image=encode, parameters=lambda: [])
    assert measure._flops(model, {"image": {"x": torch.ones(4, 3)}}, "image") == 2 * 3 * 5


def test_memory_is_that_of_the_device_that_was_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 7)
    assert measure.peak_memory(torch.device("cuda", 0)) == 7
    assert measure.peak_memory(torch.device("cpu")) > 1e7


def test_training_is_timed_without_waiting_for_the_gpu_in_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, waits = [0.0], list[float]()
    monkeypatch.setattr(measure.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(measure, "_wait", lambda: waits.append(clock[0]))
    meter, batch = measure.Meter(), {"image_index": range(4)}
    trainer: Any = SimpleNamespace(world_size=2, sanity_checking=False, state=SimpleNamespace(fn=TrainerFn.FITTING))
    model: Any = None
    for _ in range(2):
        clock[0] += 1000  # between epochs
        meter.on_train_epoch_start(trainer, model)
        for step in range(3):
            clock[0] += 1
            meter.on_train_batch_end(trainer, model, None, batch, step)
        meter.on_validation_start(trainer, model)
        clock[0] += 100
        meter.on_validation_end(trainer, model)
        meter.on_train_epoch_end(trainer, model)
    assert (meter.items["train"], meter.seconds["train"], len(waits)) == (2 * 3 * 8, 6.0, 4)
    trainer.sanity_checking = True
    meter.on_validation_start(trainer, model)
    assert len(waits) == 4


def test_losses_on_a_gpu_are_looked_at_now_and_then_and_before_every_validation() -> None:
    looked = list[int]()

    class OnGpu(Tensor):
        """A loss that counts as one of a GPU, where `tolist` waits."""

        @property
        def device(self) -> torch.device:  # type: ignore[override]
            return torch.device("cuda")

        @classmethod
        def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func is Tensor.tolist:
                looked.append(len(args[0]))
            return super().__torch_function__(func, types, args, kwargs or {})

    def loss(value: float) -> Tensor:
        return torch.tensor(value).as_subclass(OnGpu)

    watch, model, state = StopWhenDiverged(), L.LightningModule(), SimpleNamespace(fn=TrainerFn.FITTING)
    trainer: Any = SimpleNamespace(sanity_checking=False, current_epoch=2, optimizers=[], state=state)
    watch.on_train_epoch_start(trainer, model)
    for step in range(CHECK_EVERY + 20):
        outputs = {"loss": loss(float("nan") if step == CHECK_EVERY + 7 else 1.0)}
        watch.on_train_batch_end(trainer, model, outputs, None, step)
    assert looked == [CHECK_EVERY]
    with pytest.raises(Diverged, match=f"nan in step {CHECK_EVERY + 8} of epoch 3"):
        watch.on_validation_start(trainer, model)
    assert looked == [CHECK_EVERY, 20]


def test_a_module_may_be_given_a_weight() -> None:
    """As the graph over label vectors of GNN4CMR is."""

    class Method(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.vectors, self.layer = torch.nn.Parameter(torch.ones(4, 3)), torch.nn.Linear(3, 5)

        def encode_image(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
            return inputs["x"] @ self.layer(self.vectors).T

    model = Method()
    assert measure._flops(model, {"image": {"x": torch.ones(2, 5)}}, "image") == 2 * 4 * 3 * 5 + 2 * 5 * 4
    assert all(weight.requires_grad for weight in model.parameters())


def test_time_is_part_of_the_budget_that_it_ends() -> None:
    quiet: dict[str, Any] = {"accelerator": "cpu", "logger": False, "enable_checkpointing": False, "max_epochs": 2}
    unlimited, limited = L.Trainer(**quiet, callbacks=[Timer()]), L.Trainer(**quiet, max_time={"minutes": 15})
    assert measure.budget(limited, 8) == measure.budget(unlimited, 8) | {"max_seconds": 900}
