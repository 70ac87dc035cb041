"""Mutual context against a slow loop over cosines, with its exclusions, ties, tiles and empty neighbourhoods."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from itmbench.methods import neighbours
from itmbench.methods.mcr_dgn import context
from itmbench.methods.mcr_dgn.context import Blocks, Context, Edges, Excluded, Nodes, Rule, own_images

ITEM = torch.tensor([0, 1, 2, 3, 4, 5, 6, 7, 3, 0, 1, 2, 3, 4, 5, 6, 7, 3, 0, 0])
"""Nine images, one of them twice, then their texts, and one text more of the first."""
IMAGES = 9

Found = dict[tuple[int, int], tuple[float, float, float, int]]
"""(target, source) -> cosine, weight, Jaccard overlap, kind."""
Fuzzy = dict[int, float]
"""Node -> membership."""


def unit(count: int, dim: int = 6) -> Tensor:
    return normalize(torch.randn(count, dim), dim=1)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def modality(node: int, images: int) -> int:
    return int(node >= images)


def linked(mine: int, other: int, blocks: Blocks) -> bool:
    return blocks == "all" or (mine == other) == (blocks == "intra")


def limits(row: Any, candidates: list[int], k: int) -> tuple[float, float]:
    """l and h - l among candidates with these cosines; everything is a member if there are at most k."""
    ranked = sorted((float(row[node]) for node in candidates), reverse=True)
    return (-9.0, 1.0) if len(ranked) <= k else (ranked[k], ranked[(k - 1) // 2] - ranked[k])


def clip(value: float) -> float:
    return min(1.0, max(0.0, value))


def slow(vectors: Tensor, items: Tensor, images: int, nodes: Nodes, k: int, rule: Rule, blocks: Blocks) -> Found:
    """The edges of targets to nodes, pair by pair from the definitions."""
    cosines = (vectors.double() @ nodes.vectors.double().T).numpy()
    of_all = (nodes.vectors.double() @ nodes.vectors.double().T).numpy()

    def candidates(mine: int, item: int, other: int) -> list[int]:
        seen = [n for n in range(len(nodes)) if modality(n, nodes.images) == other and int(nodes.item[n]) != item]
        return seen if linked(mine, other, blocks) else []

    def members(row: Any, mine: int, item: int) -> Fuzzy:
        found: Fuzzy = {}
        for other in (0, 1):
            nodes_of_other = candidates(mine, item, other)
            low, width = limits(row, nodes_of_other, k)
            found |= {n: clip((row[n] - low) / width) for n in nodes_of_other}
        return found

    of_nodes = [members(of_all[j], modality(j, nodes.images), int(nodes.item[j])) for j in range(len(nodes))]
    found: Found = {}
    for t in range(len(vectors)):
        mine = modality(t, images)
        of_target = members(cosines[t], mine, int(items[t]))
        for j, member in of_target.items():
            other = modality(j, nodes.images)
            low, width = limits(of_all[j], candidates(other, int(nodes.item[j]), mine), k)
            reverse = clip((cosines[t, j] - low) / width)
            weight = member * reverse if rule == "mutual" else 1 - (1 - member) * (1 - reverse)
            if weight > 0:
                pairs = [(of_target.get(n, 0.0), of_nodes[j].get(n, 0.0)) for n in range(len(nodes))]
                overlap = sum(map(min, pairs)) / max(1e-9, sum(map(max, pairs)))
                found[t, j] = (cosines[t, j], weight, overlap, 2 * mine + other)
    return found


def as_dict(edges: Edges) -> Found:
    assert torch.equal(edges.target, edges.target.sort().values)
    columns = (edges.target, edges.source, edges.cosine, edges.weight, edges.jaccard, edges.kind)
    rows = list(zip(*(column.tolist() for column in columns), strict=True))
    found = {(t, j): (cosine, weight, overlap, kind) for t, j, cosine, weight, overlap, kind in rows}
    assert len(found) == len(rows)
    return found


def among(made: Context, rule: Rule = "mutual") -> Edges:
    """Edges of the nodes among themselves."""
    nodes = made.nodes
    return made.attach((made.keys[0][nodes.part(0)], made.keys[1][nodes.part(1)]), own_images(nodes.item), rule)


def same(edges: Edges, expected: Found) -> None:
    found = as_dict(edges)
    assert all(
        values[1] < 1e-4
        for pair, values in [*found.items(), *expected.items()]
        if (pair in found) != (pair in expected)
    )
    for pair in found.keys() & expected.keys():
        assert found[pair] == pytest.approx(expected[pair], abs=1e-4)


@pytest.fixture
def _no_handicap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "HANDICAP", 0.0)


RULES: tuple[Rule, Rule] = ("mutual", "union")
CASES = [(k, rule, blocks) for k in (1, 3, 30) for rule in RULES for blocks in ("all", "intra", "cross")]


@pytest.mark.usefixtures("_no_handicap")
@pytest.mark.parametrize(("k", "rule", "blocks"), CASES)
def test_edges_of_nodes_among_themselves(k: int, rule: Rule, blocks: Blocks) -> None:
    nodes = Nodes(unit(20), ITEM, IMAGES)
    expected = slow(nodes.vectors, ITEM, IMAGES, nodes, k, rule, blocks)
    same(among(Context(nodes, k, blocks), rule), expected)
    assert expected and all(ITEM[t] != ITEM[j] for t, j in expected)


@pytest.mark.usefixtures("_no_handicap")
@pytest.mark.parametrize(("k", "rule", "blocks"), CASES)
def test_others_attach_to_the_nodes(k: int, rule: Rule, blocks: Blocks) -> None:
    nodes, targets = Nodes(unit(20), ITEM, IMAGES), unit(7)
    items = torch.tensor([100, 101, 3, 103, 104, 105, 0])  # two of them are of images that the nodes are of
    edges = Context(nodes, k, blocks).attach((targets[:4], targets[4:]), own_images(items), rule)
    same(edges, slow(targets, items, 4, nodes, k, rule, blocks))


def test_a_target_attaches_alone() -> None:
    bank, targets = Context(Nodes(unit(20), ITEM, IMAGES), 3), unit(7)
    nothing = Excluded(torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.int64))
    whole = as_dict(bank.attach((targets[:4], targets[4:]), nothing))
    for row in range(7):
        alone = (targets[row : row + 1], targets[:0]) if row < 4 else (targets[:0], targets[row : row + 1])
        expected = {(0, j): values for (t, j), values in whole.items() if t == row}
        same(bank.attach(alone, nothing), expected)


def test_tiles_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes, targets = Nodes(unit(20), ITEM, IMAGES), unit(7)

    def found() -> list[Edges]:
        made = Context(nodes, 3)
        own = made.recognised((nodes.vectors[4:6], targets))
        assert [own.target.tolist(), own.image.tolist()] == [[0, 1], [4, 5]]
        return [among(made), made.attach((targets[:4], targets[4:]), own_images(ITEM[:7]), "union")]

    whole = found()
    monkeypatch.setattr(context, "_TILE", 50)
    monkeypatch.setattr(context, "_OVERLAPS", 100)
    for part, expected in zip(found(), whole, strict=True):
        same(part, as_dict(expected))


def test_what_is_not_told_is_recognised() -> None:
    nodes = Nodes(unit(20), ITEM, IMAGES)
    bank = Context(nodes, 3)
    images = torch.cat([unit(1), nodes.vectors[[3]]])  # the second is the image that is twice in the bank ...
    texts = torch.cat([nodes.vectors[[2]], nodes.vectors[[18]], nodes.vectors[[10]] + 1e-5])  # ... an image is no text
    own = bank.recognised((images, texts))
    assert list(zip(own.target.tolist(), own.image.tolist(), strict=True)) == [(1, 3), (3, 0), (4, 1)]
    assert own.share is not None and (own.share == 1).all()
    edges = bank.attach((images, texts), own, "union")
    assert not ((edges.target == 3) & (nodes.item[edges.source] == 0)).any()
    assert ((edges.target == 3) & (nodes.item[edges.source] != 0)).any()


def test_an_image_is_hidden_the_more_the_nearer_a_target_comes_to_it() -> None:
    nodes, other = Nodes(unit(20), ITEM, IMAGES), unit(1)
    bank = Context(nodes, 3)
    text = 2 + IMAGES + 1
    found: list[tuple[float, float]] = []
    for angle in (0.1, 0.07, 0.05, 0.02, 0.0):
        side = normalize(other - (other @ nodes.vectors[text]) * nodes.vectors[text], dim=1)
        target = math.cos(angle) * nodes.vectors[[text]] + math.sin(angle) * side
        own = bank.recognised((target[:0], target))
        edges = bank.attach((target[:0], target), own, "union")
        share = 0.0 if own.share is None or not len(own.share) else float(own.share)
        found.append((share, float(edges.weight[edges.source == text].sum())))
    shares, weights = zip(*found, strict=True)
    expected = [0, *((3e-3 - angle**2 / 2) / 2.9e-3 for angle in (0.07, 0.05, 0.02)), 1]
    assert shares == pytest.approx(expected, abs=1e-2)
    assert weights[0] == 1 and weights[-1] == 0 and list(weights) == sorted(weights, reverse=True)


def test_among_duplicates_as_many_are_neighbours_as_there_is_room_for() -> None:
    """The fixed handicap decides which: the same for all that look at them, and no cosine is over 1."""
    nodes = Nodes(unit(1).repeat(8, 1) * (1 + 1e-7 * torch.randn(8, 1)), torch.arange(8), 4)
    edges = among(Context(nodes, 2))
    assert edges.cosine.max() < 1 + 1e-5
    assert edges.target.unique().tolist() == list(range(8)) and edges.weight.max() < 1  # no one stands out


def test_edges_fade_where_neighbours_change_places() -> None:
    """A target that moves past the limit of either end loses and gains edges without a jump."""
    nodes, ends = Nodes(unit(20), ITEM, IMAGES), unit(2)
    bank, weights = Context(nodes, 3), []
    for position in torch.linspace(0, 1, 2001):
        target = normalize((1 - position) * ends[:1] + position * ends[1:], dim=1)
        dense = torch.zeros(2, 20)
        for row, rule in enumerate(RULES):
            edges = bank.attach((target, target[:0]), own_images(torch.tensor([99])), rule)
            dense[row, edges.source] = edges.weight
        weights.append(dense)
    changes = torch.stack(weights).diff(dim=0).abs()
    assert changes.max() < 0.05  # the steepest of 19 slopes; a jump would be 1
    on = torch.stack(weights) > 0
    assert (on[1:] != on[:-1]).any(0).sum() > 10  # edges that appeared or disappeared on the way


def test_a_node_without_anyone_has_no_edge() -> None:
    nodes = Nodes(unit(4), torch.zeros(4, dtype=torch.int64), 2)  # all of one image
    for rule in RULES:
        assert len(among(Context(nodes, 3), rule)) == 0
    alone = Context(Nodes(unit(1), torch.tensor([0]), 1), 3)
    assert len(among(alone)) == 0
    assert len(alone.attach((unit(2), unit(3)), own_images(torch.arange(1, 6)))) == 5


def test_not_mutual_is_not_connected() -> None:
    """Three in a row: the middle one's nearest is the left one, so that the right one is left alone."""
    angles = torch.tensor([0.0, 0.4, 1.0])
    nodes = Nodes(torch.stack([angles.cos(), angles.sin()], dim=1), torch.arange(3), 3)
    made = Context(nodes, 1)
    for rule, expected in (("mutual", [(0, 1), (1, 0)]), ("union", [(0, 1), (1, 0), (2, 1), (1, 2)])):
        strong = [pair for pair, values in as_dict(among(made, rule)).items() if values[1] > 0.01]  # type: ignore[arg-type]
        assert sorted(strong) == sorted(expected)


@pytest.mark.usefixtures("_no_handicap")
def test_looked_at_by_something_else_than_the_nodes() -> None:
    """Images look at nodes by one space, texts by another: as if they were in two contexts."""
    nodes, of_images, of_texts = Nodes(unit(20), ITEM, IMAGES), unit(20, 5), unit(20, 7)
    edges = as_dict(among(Context(nodes, 3, keys=(of_images, of_texts))))
    for kind, seen, part in ((0, of_images, slice(0, IMAGES)), (3, of_texts, slice(IMAGES, 20))):
        own = Nodes(seen, ITEM, IMAGES)
        expected = slow(seen, ITEM, IMAGES, own, 3, "mutual", "intra")
        inside = {pair: v for pair, v in edges.items() if v[3] == kind}
        outside = {pair for pair in expected if part.start <= pair[0] < part.stop} ^ inside.keys()
        assert all((edges | expected)[pair][1] < 1e-4 for pair in outside)
    cross = (of_images[0] @ of_images[IMAGES:].T).numpy()
    first = [j for t, j in edges if t == 0 and j >= IMAGES]
    assert np.all(np.isin(np.array(first) - IMAGES, np.argsort(-cross)[:6]))


def test_of_nodes_that_are_equally_near_rounding_chooses_none() -> None:
    """Sixteen texts of the same words, and a target with room for three: the same three, whatever its last digit."""
    words = unit(1).expand(16, -1)
    nodes = Nodes(torch.cat([unit(4), words, unit(4)]), torch.arange(24), 4)
    found = Context(nodes, 3)
    target = unit(1)
    item = torch.tensor([99])
    found_members = []
    for _ in range(50):
        shaken = normalize(target + 1e-7 * torch.randn_like(target), dim=1)
        # Products of other shapes round in other ways, and not all columns alike.
        noise = 1e-7 * torch.randn(len(nodes), 6)
        found.keys = (nodes.vectors + noise, nodes.vectors + noise)
        nearest, dense = found.nearest((target[:0], shaken), own_images(item)), torch.zeros(len(nodes))
        dense[nearest.node[0, 1]] = nearest.member[0, 1]
        found_members.append(dense)
    members = torch.stack(found_members)
    assert members.max(0).values.gt(0).sum() == 3 and (members.amax(0) - members.amin(0)).max() < 0.05
