"""The control of maximum pooling, and that its heads learn as if each were alone."""

from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch.nn.functional import normalize
from toy import ToyData, toy_encoders, trainer
from toy_tokens import real, toy_items

from itmbench.errors import InputError
from itmbench.methods.losses import InfoNCE, TripletLoss
from itmbench.methods.pooled_max import MaxPooling, PooledMax


def model(heads: int = 1, **options: Any) -> PooledMax:
    torch.manual_seed(0)
    return PooledMax(**toy_encoders() | {"dim": 8, "heads": heads, "lr": 3e-3} | options)


def head(of: PooledMax, modality: str, number: int) -> MaxPooling:
    return cast(Any, of.heads[modality])[number]


def test_adds_the_maximum_of_the_real_tokens() -> None:
    torch.manual_seed(0)
    layer, items = MaxPooling(16, 8), toy_items([4, 1, 2])
    with torch.no_grad():
        for row in range(3):
            expected = layer.pooled(items.pooled[row]) + layer.tokens(real(items, row)).max(0).values
            torch.testing.assert_close(layer(items)[row], expected)


def test_two_heads_add_their_logits() -> None:
    two, items = model(2), toy_items([4, 1, 2], dim=32)
    with torch.no_grad():
        cast(InfoNCE, two.loss).log_scale.fill_(2.0)
        cast(InfoNCE, two.losses[0]).log_scale.fill_(3.0)
        image, text = two.embed(items, "image"), two.embed(items, "text")
        cosines = [
            normalize(head(two, "image", number)(items), dim=-1) @ normalize(head(two, "text", number)(items), dim=-1).T
            for number in range(2)
        ]
        scales = torch.tensor([2.0, 3.0]).exp()
        expected = (scales[0] * cosines[0] + scales[1] * cosines[1]) / scales.sum()
        torch.testing.assert_close(two.score(image, text), expected)


def test_a_head_learns_the_same_beside_another(tmp_path: Path) -> None:
    """After three steps the first head of two equals a single one that started from the same weights."""
    alone, two = model(), model(2)
    for modality in ("image", "text"):
        head(two, modality, 0).load_state_dict(head(alone, modality, 0).state_dict())
        for encoder in (getattr(alone, modality), getattr(two, modality)):
            encoder.requires_grad_(False)
    two.image.load_state_dict(alone.image.state_dict())
    for each in (alone, two):
        trainer(tmp_path, max_steps=3, limit_val_batches=0).fit(each, ToyData(str(tmp_path)))
    for modality in ("image", "text"):
        torch.testing.assert_close(
            head(two, modality, 0).state_dict(),
            head(alone, modality, 0).state_dict(),
        )
    assert float(cast(InfoNCE, alone.loss).log_scale.detach()) == pytest.approx(
        float(cast(InfoNCE, two.loss).log_scale.detach())
    )
    assert not torch.equal(head(two, "image", 1).tokens.weight, head(two, "image", 0).tokens.weight)


def test_losses_without_a_temperature_weigh_heads_equally() -> None:
    pooled = model(2, loss=TripletLoss()).embed(toy_items([2], dim=32), "image").pooled
    torch.testing.assert_close(pooled.view(2, 8).norm(dim=1), torch.ones(2))


def test_needs_a_head() -> None:
    with pytest.raises(InputError, match="heads is 0"):
        model(0)
