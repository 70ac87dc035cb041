"""Mutual context against loops over pairs of nodes."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from itmbench.methods.mcr_dgn import context as context_module
from itmbench.methods.mcr_dgn.context import Context, Rule
from itmbench.methods.neighbours import HANDICAP


def nodes(count: int, seed: int = 0, dim: int = 6) -> Tensor:
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed)) + 1.0


def relative(vector: Tensor, bank: Tensor) -> Tensor:
    return normalize(vector - bank.mean(0), dim=0)


def memberships(cosines: list[float], k: int) -> list[float]:
    """How far each of some nodes is among the k nearest: the nearer half wholly, the rest fading to the next one."""
    ordered = sorted(cosines, reverse=True)
    if len(ordered) <= k:
        return [1.0] * len(cosines)
    low, high = ordered[k], ordered[(k - 1) // 2]
    return [min(1.0, max(0.0, (cosine - low) / (high - low))) for cosine in cosines]


@pytest.mark.parametrize("rule", ["mutual", "nearest"])
def test_edges_are_those_of_a_loop_over_pairs(rule: Rule) -> None:
    bank, queries, k = nodes(12), nodes(5, seed=1), 4
    edges = Context(bank, k, rule).attach(queries)
    units = [relative(vector, bank) for vector in bank]
    for row, query in enumerate(queries):
        unit = relative(query, bank)
        cosines = [float(unit @ other) for other in units]
        expected = memberships(cosines, k)
        if rule == "mutual":
            for j, other in enumerate(units):
                among = [float(other @ third) for i, third in enumerate(units) if i != j]
                ordered = sorted(among, reverse=True)
                low, high = ordered[k], ordered[(k - 1) // 2]
                expected[j] *= min(1.0, max(0.0, (cosines[j] - low) / (high - low)))
        found = torch.zeros(12).scatter_(0, edges.source[row], edges.weight[row])
        # The penalties of near ties move the ends of a neighbourhood a little.
        torch.testing.assert_close(found, torch.tensor(expected), atol=30 * HANDICAP, rtol=0)
        torch.testing.assert_close(edges.cosine[row], torch.tensor(cosines)[edges.source[row]], atol=1e-5, rtol=0)


def test_mutual_edges_are_fewer() -> None:
    bank, queries = nodes(40), nodes(20, seed=1)
    mutual, nearest = (Context(bank, 6, rule).attach(queries) for rule in ("mutual", "nearest"))
    assert torch.equal(mutual.source, nearest.source)
    assert (mutual.weight <= nearest.weight + 1e-6).all()
    assert 0 < (mutual.weight > 0).sum() < (nearest.weight > 0).sum()


def test_a_small_bank_connects_everything() -> None:
    edges = Context(nodes(3), 8, "mutual").attach(nodes(2, seed=1))
    assert edges.source.shape == (2, 3) and (edges.weight == 1).all()
    assert Context(nodes(1), 8, "mutual").attach(nodes(2, seed=1)).weight.tolist() == [[1.0], [1.0]]


@pytest.mark.parametrize("rule", ["mutual", "nearest"])
def test_weights_are_continuous_where_edges_appear(rule: Rule) -> None:
    """A node on its way across the bank: no weight jumps, though edges come and go."""
    context = Context(nodes(30), 5, rule)
    start, end = nodes(2, seed=3)
    path = torch.stack([start + (end - start) * share for share in torch.linspace(0, 1, 20_001)])
    edges = context.attach(path)
    dense = torch.zeros(len(path), 30).scatter_(1, edges.source, edges.weight)
    assert (dense[1:] - dense[:-1]).abs().max() < 0.02
    assert ((dense[0] > 0) != (dense[-1] > 0)).any()


def test_a_copy_is_recognised_and_hidden() -> None:
    bank = nodes(12)
    context = Context(bank, 4, "nearest")
    queries = torch.stack([bank[7], bank[2] + 1e-6, nodes(1, seed=5)[0]])
    copies = context.copies(queries)
    assert copies[0, 7] == 1 and copies[1, 2] == 1 and copies.sum() == 2
    edges = context.attach(queries, copies)
    assert edges.weight[0][edges.source[0] == 7].item() == 0 and edges.weight[1][edges.source[1] == 2].item() == 0
    torch.testing.assert_close(edges.weight[2], context.attach(queries[2:]).weight[0])


def test_tiles_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    bank = nodes(23)
    every = torch.arange(23)
    whole = Context(bank, 4, "mutual").limits(every)
    monkeypatch.setattr("itmbench.methods.mcr_dgn.context._TILE", 50)
    tiled = Context(bank, 4, "mutual").limits(every)
    torch.testing.assert_close(tiled, whole)


def test_limits_of_few_nodes_are_those_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    context = Context(nodes(40), 4, "mutual")
    searched: list[int] = []
    real = context_module.fading_top

    def counted(cosines: Tensor, k: int) -> Any:
        searched.append(len(cosines))
        return real(cosines, k)

    monkeypatch.setattr(context_module, "fading_top", counted)
    few = [context.limits(torch.tensor(rows)) for rows in ([[3, 7], [7, 0]], [7, 9], [9, 3])]
    assert searched == [3, 1]
    whole = context.limits(torch.arange(40))
    assert searched == [3, 1, 40]
    torch.testing.assert_close(few[0], whole[[3, 7, 7, 0]].view(2, 2, 2))
    torch.testing.assert_close(few[2], whole[[9, 3]])
    assert torch.equal(context.limits(torch.tensor([1])), whole[[1]]) and len(searched) == 3
