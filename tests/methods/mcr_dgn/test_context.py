"""Mutual context against a slow loop over cosines, with its exclusions, ties, tiles and empty neighbourhoods."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from itmbench.methods.mcr_dgn import context
from itmbench.methods.mcr_dgn.context import Blocks, Context, Edges, Nodes, Rule, own_images

ITEM = torch.tensor([0, 1, 2, 3, 4, 5, 6, 7, 3, 0, 1, 2, 3, 4, 5, 6, 7, 3, 0, 0])
"""Nine images, one of them twice, then their texts, and one text more of the first."""
IMAGES = 9

Found = dict[tuple[int, int], tuple[float, float, int]]
"""(target, source) -> cosine, Jaccard overlap, kind."""


def unit(count: int, dim: int = 6) -> Tensor:
    return normalize(torch.randn(count, dim), dim=1)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def modality(node: int, images: int) -> int:
    return int(node >= images)


def linked(mine: int, other: int, blocks: Blocks) -> bool:
    return blocks == "all" or (mine == other) == (blocks == "intra")


def nearest(row: Any, mine: int, item: int, nodes: Nodes, k: int, blocks: Blocks) -> dict[int, list[int]]:
    """The k nearest of each modality of a node with these cosines to all nodes."""
    lists: dict[int, list[int]] = {0: [], 1: []}
    for other in sorted(range(len(nodes)), key=lambda node: -row[node]):
        what = modality(other, nodes.images)
        if int(nodes.item[other]) != item and linked(mine, what, blocks) and len(lists[what]) < k:
            lists[what].append(other)
    return lists


def slow(vectors: Tensor, items: Tensor, images: int, nodes: Nodes, k: int, rule: Rule, blocks: Blocks) -> Found:
    """The edges of targets to nodes, pair by pair from the definitions."""
    cosines = (vectors.double() @ nodes.vectors.double().T).numpy()
    of_all = (nodes.vectors.double() @ nodes.vectors.double().T).numpy()
    of_nodes = [
        nearest(of_all[j], modality(j, nodes.images), int(nodes.item[j]), nodes, k, blocks) for j in range(len(nodes))
    ]
    found: Found = {}
    for t in range(len(vectors)):
        mine = modality(t, images)
        of_target = nearest(cosines[t], mine, int(items[t]), nodes, k, blocks)
        for j in range(len(nodes)):
            other = modality(j, nodes.images)
            if items[t] == nodes.item[j] or not linked(mine, other, blocks):
                continue
            seen = j in of_target[other]
            # t would be among j's nearest if fewer than k of its modality are nearer.
            nearer = [n for n in of_nodes[j][mine] if of_all[j, n] > cosines[t, j] + 1e-9]
            sees = len(nearer) < k
            if (seen and sees) if rule == "mutual" else (seen or sees):
                a = {*of_target[0], *of_target[1]}
                b = {*of_nodes[j][0], *of_nodes[j][1]}
                found[t, j] = (cosines[t, j], len(a & b) / max(1, len(a | b)), 2 * mine + other)
    return found


def as_dict(edges: Edges) -> Found:
    assert torch.equal(edges.target, edges.target.sort().values)
    columns = (edges.target, edges.source, edges.cosine, edges.jaccard, edges.kind)
    rows = list(zip(*(column.tolist() for column in columns), strict=True))
    found = {(t, j): (cosine, overlap, kind) for t, j, cosine, overlap, kind in rows}
    assert len(found) == len(rows)
    return found


def among(made: Context, rule: Rule = "mutual") -> Edges:
    """Edges of the nodes among themselves."""
    nodes = made.nodes
    return made.attach((made.keys[0][nodes.part(0)], made.keys[1][nodes.part(1)]), own_images(nodes.item), rule)


def same(edges: Edges, expected: Found) -> None:
    found = as_dict(edges)
    assert found.keys() == expected.keys()
    for pair, values in expected.items():
        assert found[pair] == pytest.approx(values, abs=1e-5)


CASES = [(k, rule, blocks) for k in (1, 3, 30) for rule in ("mutual", "union") for blocks in ("all", "intra", "cross")]


@pytest.mark.parametrize(("k", "rule", "blocks"), CASES)
def test_edges_of_nodes_among_themselves(k: int, rule: Rule, blocks: Blocks) -> None:
    nodes = Nodes(unit(20), ITEM, IMAGES)
    expected = slow(nodes.vectors, ITEM, IMAGES, nodes, k, rule, blocks)
    same(among(Context(nodes, k, blocks), rule), expected)
    assert expected and all(ITEM[t] != ITEM[j] for t, j in expected)


@pytest.mark.parametrize(("k", "rule", "blocks"), CASES)
def test_others_attach_to_the_nodes(k: int, rule: Rule, blocks: Blocks) -> None:
    nodes, targets = Nodes(unit(20), ITEM, IMAGES), unit(7)
    items = torch.tensor([100, 101, 3, 103, 104, 105, 0])  # two of them are of images that the nodes are of
    edges = Context(nodes, k, blocks).attach((targets[:4], targets[4:]), own_images(items), rule)
    same(edges, slow(targets, items, 4, nodes, k, rule, blocks))


def test_a_target_attaches_alone() -> None:
    bank, targets = Context(Nodes(unit(20), ITEM, IMAGES), 3), unit(7)
    nothing = (torch.empty(0, dtype=torch.int64),) * 2
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
        assert [part.tolist() for part in own] == [[0, 1], [4, 5]]
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
    row, image = bank.recognised((images, texts))
    assert list(zip(row.tolist(), image.tolist(), strict=True)) == [(1, 3), (3, 0), (4, 1)]
    edges = bank.attach((images, texts), (row, image), "union")
    assert not ((edges.target == 3) & (nodes.item[edges.source] == 0)).any()
    assert ((edges.target == 3) & (nodes.item[edges.source] != 0)).any()


def test_duplicates_are_neighbours_wherever_rounding_puts_them() -> None:
    """As many equal nodes as there are: all of them are mutual to any that looks at them, and no cosine is over 1."""
    nodes = Nodes(unit(1).repeat(8, 1) * (1 + 1e-7 * torch.randn(8, 1)), torch.arange(8), 4)
    edges = among(Context(nodes, 2))
    assert edges.target.bincount(minlength=8).tolist() == [4] * 8
    assert edges.cosine.max() < 1 + 1e-5


def test_a_node_without_anyone_has_no_edge() -> None:
    nodes = Nodes(unit(4), torch.zeros(4, dtype=torch.int64), 2)  # all of one image
    for rule in ("mutual", "union"):
        assert len(among(Context(nodes, 3), rule)) == 0
    alone = Context(Nodes(unit(1), torch.tensor([0]), 1), 3)
    assert len(among(alone)) == 0
    assert len(alone.attach((unit(2), unit(3)), own_images(torch.arange(1, 6)))) == 5


def test_not_mutual_is_not_connected() -> None:
    """Three in a row: the middle one's nearest is the left one, so that the right one is left alone."""
    angles = torch.tensor([0.0, 0.4, 1.0])
    nodes = Nodes(torch.stack([angles.cos(), angles.sin()], dim=1), torch.arange(3), 3)
    made = Context(nodes, 1)
    assert sorted(as_dict(among(made, "mutual"))) == [(0, 1), (1, 0)]
    assert sorted(as_dict(among(made, "union"))) == [(0, 1), (1, 0), (1, 2), (2, 1)]


def test_looked_at_by_something_else_than_the_nodes() -> None:
    """Images look at nodes by one space, texts by another: as if they were in two contexts."""
    nodes, of_images, of_texts = Nodes(unit(20), ITEM, IMAGES), unit(20, 5), unit(20, 7)
    edges = as_dict(among(Context(nodes, 3, keys=(of_images, of_texts))))
    for kind, seen, part in ((0, of_images, slice(0, IMAGES)), (3, of_texts, slice(IMAGES, 20))):
        own = Nodes(seen, ITEM, IMAGES)
        expected = slow(seen, ITEM, IMAGES, own, 3, "mutual", "intra")
        inside = {pair: v for pair, v in edges.items() if v[2] == kind}
        assert inside.keys() == {pair for pair in expected if part.start <= pair[0] < part.stop}
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
    sets = set()
    for _ in range(50):
        shaken = normalize(target + 1e-7 * torch.randn_like(target), dim=1)
        # Products of other shapes round in other ways, and not all columns alike.
        noise = 1e-7 * torch.randn(len(nodes), 6)
        found.keys = (nodes.vectors + noise, nodes.vectors + noise)
        sets.add(tuple(sorted(found.nearest((target[:0], shaken), own_images(item)).node[0, 1].tolist())))
    assert len(sets) == 1
