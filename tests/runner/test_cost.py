"""What a run costs."""

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from itmbench.runner import cost as measure


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

    model = SimpleNamespace(encode_image=encode)
    assert measure._flops(model, {"image": {"x": torch.ones(4, 3)}}, "image") == 2 * 3 * 5


def test_memory_is_that_of_the_device_that_was_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 7)
    assert measure.peak_memory(torch.device("cuda", 0)) == 7
    assert measure.peak_memory(torch.device("cpu")) > 1e7
