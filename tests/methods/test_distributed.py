"""Two processes train and evaluate as one does with the same global batch."""

from typing import Any

import pytest
import torch
from methods import ddp_run
from methods.test_contract import METHODS

from itmbench.methods.identity import Identity
from itmbench.runner import registry

Found = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> tuple[Found, Found]:
    """What one process and two leave."""
    folder = tmp_path_factory.mktemp("ranks")
    return ddp_run.run(1, folder), ddp_run.run(2, folder)


@pytest.mark.parametrize("name", METHODS)
def test_a_step_does_not_depend_on_the_number_of_devices(name: str, found: tuple[Found, Found]) -> None:
    one, two = (results[name] for results in found)
    assert two["loss"] == pytest.approx(one["loss"], rel=1e-5)
    assert one["gradients"].keys() == two["gradients"].keys()
    for key, gradient in one["gradients"].items():
        torch.testing.assert_close(two["gradients"][key], gradient, atol=1e-5, rtol=1e-4, msg=key)
    assert any(gradient.abs().max() > 1e-3 for gradient in one["gradients"].values())


def test_metrics_and_banks_do_not_depend_on_the_number_of_devices(found: tuple[Found, Found]) -> None:
    one, two = found
    assert {name for name in one if "metrics" in one[name]} == {"dual_encoder", "sedra", "mcr_dgn"}
    for name in METHODS:
        assert one[name].get("metrics") == two[name].get("metrics"), name
        for key, bank in one[name]["bank"].items():
            torch.testing.assert_close(two[name]["bank"][key], bank, atol=1e-5, rtol=1e-4, msg=f"{name} {key}")
    assert len(one["mcr_dgn"]["bank"]["bank.rows"]) > 20


def test_every_registered_method_that_takes_steps_is_among_these() -> None:
    registered = {entry.load() for entry in registry.entries("methods")}
    taking_steps = {kind for kind in registered if kind.trains_by_steps and kind is not Identity}  # type: ignore[attr-defined]
    assert taking_steps == {kind for kind, *_ in METHODS.values()}
