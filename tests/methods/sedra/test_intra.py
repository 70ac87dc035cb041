"""Relations within an item against a loop, its modes, padding and extremes."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from itmbench.methods.sedra.intra import MAX_DISTANCE, IntraModalRelations

MODES = ["full", "topk", "static"]


def module(mode: Any, k: int = 2) -> IntraModalRelations:
    torch.manual_seed(0)
    layer = IntraModalRelations(8, mode, k, heads=2)
    with torch.no_grad():
        for weight in layer.parameters():
            weight.add_(0.3 * torch.randn_like(weight))
    return layer


def slow(layer: IntraModalRelations, tokens: Tensor, mask: Tensor) -> Tensor:
    """One item `[N, D]`, token by token and head by head."""
    related = torch.zeros_like(tokens)
    for i in range(len(tokens)):
        others = [j for j in range(len(tokens)) if mask[j] and j != i]
        for head, part in enumerate((slice(0, 4), slice(4, 8))):
            strength = {}
            for j in others:
                strength[j] = float(layer.place[head, min(max(j - i, -MAX_DISTANCE), MAX_DISTANCE) + MAX_DISTANCE])
                if layer.mode != "static":
                    one, two = tokens[i, part], tokens[j, part]
                    strength[j] += math.exp(layer.log_sharpness[head]) * float(one @ two / one.norm() / two.norm())
            if layer.mode == "topk":
                strength = dict(sorted(strength.items(), key=lambda pair: -pair[1])[: layer.k])
            total = sum(math.exp(value) for value in strength.values())
            for j, value in strength.items():
                related[i, part] += math.exp(value) / total * tokens[j, part]
    return tokens + layer.step * (related @ layer.mix.weight.T)


@pytest.mark.parametrize("mode", MODES)
@torch.no_grad()
def test_equals_the_loop(mode: Any) -> None:
    layer, tokens = module(mode), torch.randn(3, 40, 8)  # longer than the largest distance with a bias of its own
    mask = torch.arange(40) < torch.tensor([[40], [3], [1]])
    for item in range(3):
        length = int(mask[item].sum())
        torch.testing.assert_close(
            layer(tokens, mask)[item, :length], slow(layer, tokens[item], mask[item])[:length], rtol=0, atol=1e-5
        )


@torch.no_grad()
def test_modes_and_k_change_the_tokens() -> None:
    tokens, mask = torch.randn(2, 5, 8), torch.ones(2, 5, dtype=torch.bool)
    results = [module(mode)(tokens, mask) for mode in ("off", "full", "topk", "static")] + [
        module("topk", k=1)(tokens, mask)
    ]
    assert torch.equal(results[0], tokens)
    for at, one in enumerate(results):
        for other in results[:at]:
            assert not torch.allclose(one, other, atol=1e-3)


@torch.no_grad()
def test_only_relations_that_follow_the_content_change_with_it() -> None:
    """What moves a token that stays: the other tokens' values alone, or also who is looked at."""
    mask, tokens = torch.ones(1, 4, dtype=torch.bool), torch.randn(1, 4, 8)
    swapped = tokens[:, [0, 2, 1, 3]]
    for mode in MODES:
        layer = module(mode)
        layer.place.zero_()  # all places alike: an item is a set of tokens
        torch.testing.assert_close(layer(tokens, mask)[:, 0], layer(swapped, mask)[:, 0])
    for mode in MODES:
        one, other = (module(mode)(items, mask)[:, 0] for items in (tokens, swapped))
        assert not torch.allclose(one, other, atol=1e-3)  # places count
    opposite = -tokens
    opposite[:, 0] = tokens[:, 0]
    layer = module("static")
    moved, back = (layer(items, mask)[:, 0] - tokens[:, 0] for items in (tokens, opposite))
    torch.testing.assert_close(moved, -back)  # the same weights


@pytest.mark.parametrize("mode", MODES)
def test_extremes_have_finite_gradients(mode: Any) -> None:
    """Nothing but padding, one token, huge, equal and zero tokens."""
    tokens = torch.randn(5, 5, 8)
    tokens[2] *= 1e4
    tokens[3] = 1.0
    tokens[4] = 0.0
    mask = torch.tensor([[False] * 5, [True] + [False] * 4, [True] * 5, [True] * 5, [True] * 5])
    layer = module(mode)
    layer(tokens.requires_grad_(), mask).square().sum().backward()
    assert tokens.grad is not None and tokens.grad.isfinite().all()
    assert all(weight.grad.isfinite().all() for weight in layer.parameters() if weight.grad is not None)


@torch.no_grad()
def test_an_untrained_layer_moves_tokens_a_little_towards_those_that_they_resemble() -> None:
    tokens = torch.tensor([[[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]]])
    moved = IntraModalRelations(2, "topk", 1, heads=1)(tokens, torch.ones(1, 3, dtype=torch.bool))
    torch.testing.assert_close(moved[0, 0], tokens[0, 0] + 0.1 * tokens[0, 1])
