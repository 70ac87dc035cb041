"""Relations within an item against a loop, its modes, padding and extremes."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import gelu

from itmbench.methods.sedra.intra import IntraModalRelations, position_codes


def module(mode: Any, k: int = 2) -> IntraModalRelations:
    torch.manual_seed(0)
    layer = IntraModalRelations(8, mode, k, heads=2, dropout=0.0)
    with torch.no_grad():
        for weight in layer.parameters():
            weight.add_(0.2 * torch.randn_like(weight))
    return layer


def slow(layer: IntraModalRelations, tokens: Tensor, mask: Tensor) -> Tensor:
    """One item `[N, D]`, token by token and head by head."""
    codes = torch.zeros_like(tokens)
    for n in range(len(tokens)):
        for d in range(0, 8, 2):
            codes[n, d], codes[n, d + 1] = math.sin(n / 10_000 ** (d / 8)), math.cos(n / 10_000 ** (d / 8))
    content = layer.norm(tokens)
    related = codes if layer.mode == "static" else content
    seen = torch.zeros_like(tokens)
    real = [n for n in range(len(tokens)) if mask[n]]
    for n in range(len(tokens)):
        for head in (slice(0, 4), slice(4, 8)):
            query = layer.query(related[n])[head]
            strength = {other: float(query @ layer.key(related[other])[head]) / 2 for other in real}
            if layer.mode == "topk":
                strength = dict(sorted(strength.items(), key=lambda pair: -pair[1])[: layer.k])
            total = sum(math.exp(value) for value in strength.values())
            for other, value in strength.items():
                seen[n, head] += math.exp(value) / total * layer.value(content[other])[head]
    first = tokens + 0.1 * layer.out(seen)
    inner, outer = layer.feed_forward[0], layer.feed_forward[2]
    return first + 0.1 * outer(gelu(inner(layer.feed_forward_norm(first))))


@pytest.mark.parametrize("mode", ["full", "topk", "static"])
@torch.no_grad()
def test_equals_the_loop(mode: Any) -> None:
    layer, tokens = module(mode), torch.randn(2, 5, 8)
    mask = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    for item in range(2):
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


@pytest.mark.parametrize("mode", ["full", "topk", "static"])
def test_extremes_have_finite_gradients(mode: Any) -> None:
    """Nothing but padding, one token, huge and equal tokens."""
    tokens = torch.randn(4, 5, 8)
    tokens[2] *= 1e4
    tokens[3] = 1.0
    mask = torch.tensor([[False] * 5, [True] + [False] * 4, [True] * 5, [True] * 5])
    layer = module(mode)
    layer(tokens.requires_grad_(), mask).square().sum().backward()
    assert tokens.grad is not None and tokens.grad.isfinite().all()
    assert all(weight.grad.isfinite().all() for weight in layer.parameters() if weight.grad is not None)


@torch.no_grad()
def test_padding_is_never_looked_at() -> None:
    layer, tokens = module("topk", k=3), torch.randn(1, 5, 8)
    mask = torch.tensor([[True] * 3 + [False] * 2])
    changed = tokens.clone()
    changed[:, 3:] += 5
    torch.testing.assert_close(layer(tokens, mask)[:, :3], layer(changed, mask)[:, :3])
    torch.testing.assert_close(layer(tokens, mask)[:, :3], layer(tokens[:, :3], mask[:, :3]))


def test_position_codes_have_the_shape_of_the_tokens() -> None:
    assert position_codes(torch.zeros(3, 4, 7)).shape == (3, 4, 7)


@pytest.mark.parametrize("mode", ["full", "topk", "static"])
def test_an_untrained_layer_changes_nothing(mode: Any) -> None:
    tokens = torch.randn(2, 5, 8)
    layer = IntraModalRelations(8, mode, 2, heads=2)
    assert torch.equal(layer(tokens, torch.ones(2, 5, dtype=torch.bool)), tokens)
