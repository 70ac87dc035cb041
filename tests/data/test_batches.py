from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from toy import ToyData

from itmbench.data.batches import EpochOrder, derived_seed
from itmbench.data.datamodule import Sources


def draws(items: Any, train: bool) -> dict[str, torch.Tensor]:
    """A processor that returns two random numbers for each item."""
    return {"drawn": torch.stack([torch.rand(2) for _ in items])}


def epoch_of(folder: Path, epoch: int = 0, seed: int = 0, **options: Any) -> dict[int, torch.Tensor]:
    """Random numbers of the image and the text of every training pair of an epoch, by text."""
    L.seed_everything(seed, verbose=False)
    data = ToyData(str(folder), copies=1, **options)
    data.attach(Sources(data.corpus, draws, draws))
    loader = data.train_dataloader()
    assert isinstance(loader.sampler, EpochOrder)
    loader.sampler.set_epoch(epoch)
    drawn: dict[int, torch.Tensor] = {}
    for batch in loader:
        both = torch.cat([batch["image"]["drawn"], batch["text"]["drawn"]], 1)
        drawn |= dict(zip(batch["text_index"].tolist(), both, strict=True))
    return drawn


def test_draws_depend_on_seed_epoch_and_item_alone(tmp_path: Path) -> None:
    drawn = epoch_of(tmp_path, batch_size=16)
    for options in ({"batch_size": 8}, {"batch_size": 4, "num_workers": 2}):
        again = epoch_of(tmp_path, **options)
        assert again.keys() == drawn.keys() and len(drawn) == 32
        assert all(torch.equal(again[text], drawn[text]) for text in drawn)
    for changed in (epoch_of(tmp_path, epoch=1), epoch_of(tmp_path, seed=1)):
        assert sorted(changed) == sorted(drawn) and list(changed) != list(drawn)
        assert not any(torch.equal(changed[text], drawn[text]) for text in drawn)
    everything = torch.stack(list(drawn.values())).flatten()
    assert len(everything.unique()) == len(everything)


def test_loading_leaves_the_generator_of_dropout_alone(tmp_path: Path) -> None:
    data = ToyData(str(tmp_path), copies=1)
    data.attach(Sources(data.corpus, draws, draws))
    before = torch.get_rng_state()
    assert len(list(data.train_dataloader())) == 2
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("devices", [1, 2, 3])
def test_devices_share_an_epoch_evenly(devices: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PL_GLOBAL_SEED", "5")
    data: Any = range(32)
    orders = [EpochOrder(data, devices, rank) for rank in range(devices)]
    for order in orders:
        order.set_epoch(2)
    shares = [list(order) for order in orders]
    assert [len(share) for share in shares] == [len(order) for order in orders] == [-(-32 // devices)] * devices
    assert {place for share in shares for _, place in share} == set(data)
    assert {epoch for share in shares for epoch, _ in share} == {2}
    # The devices deal out the order of a single device.
    dealt = [share[at] for at in range(len(shares[0])) for share in shares]
    alone = EpochOrder(data)
    alone.set_epoch(2)
    assert dealt[:32] == list(alone)


def test_seeds_are_unrelated() -> None:
    seeds = {derived_seed(*numbers) for numbers in [(0, 1), (1, 0), (0, 1, 0), (0,), (1,), (0, 2)]}
    assert len(seeds) == 6 and all(0 <= seed < 2**63 for seed in seeds)
