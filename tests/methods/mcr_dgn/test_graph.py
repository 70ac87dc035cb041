"""The graph's layer against a slow loop, what its switches change, and what cannot flow through it."""

import math
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import leaky_relu, normalize

from itmbench.methods.mcr_dgn.bank import pair_context
from itmbench.methods.mcr_dgn.context import Context, Edges, Nodes, own_images
from itmbench.methods.mcr_dgn.graph import Attention, DynamicGraph, GraphLayer, Propagation, Update, votes

DIM = 6
EDGES = Edges(
    source=torch.tensor([1, 3, 4, 0, 4]),
    target=torch.tensor([0, 0, 0, 2, 2]),
    cosine=torch.tensor([0.3, 0.2, -0.1, 0.5, 0.9]),
    weight=torch.tensor([0.9, 1.0, 0.3, 1.0, 0.5]),
    jaccard=torch.tensor([0.1, 0.6, 0.0, 0.3, 1.0]),
    kind=torch.tensor([0, 1, 1, 2, 3]),
)


def unit(*shape: int) -> Tensor:
    return normalize(torch.randn(*shape), dim=-1)


def layer(attention: Attention = "gatv2", step: float = 0.3) -> GraphLayer:
    """A layer whose weights are not those that it begins with."""
    made = GraphLayer(DIM, attention, step)
    for weight in made.parameters():
        torch.nn.init.normal_(weight, std=0.5)
    return made


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("attention", ["gatv2", "cosine", "uniform"])
def test_layer_is_attention_and_a_relational_graph_convolution(attention: Attention) -> None:
    made, targets, sources = layer(attention), unit(3, DIM), unit(5, DIM)
    weights = made.weights(targets, sources, EDGES)
    states = made(targets, sources, EDGES, weights, 1)
    share = made.share(EDGES, weights)
    for target in range(3):
        moved = targets[target]
        steps = made.step.detach().abs().view(2, 2)[int(target > 0)]  # the first target is a node of an image
        for modality in range(2):
            logits = {}
            for e in range(5):
                if EDGES.target[e] != target or EDGES.kind[e] % 2 != modality:
                    continue
                logit = 0.0 if attention == "uniform" else EDGES.cosine[e].item() / 0.1
                if attention == "gatv2":
                    kind = [float(EDGES.kind[e] == kind) for kind in range(4)]
                    features = torch.tensor([EDGES.cosine[e], EDGES.jaccard[e], *kind])
                    hidden = made.target_map(targets[target]) + made.source_map(sources[EDGES.source[e]])
                    logit += made.score(leaky_relu(hidden + made.edge_map(features), 0.2)).item()
                logits[e] = logit
            total = sum(EDGES.weight[e].item() * math.exp(logit) for e, logit in logits.items())
            relation = 2 * (target > 0) + modality
            for e, logit in logits.items():
                strongest = max(EDGES.weight[other].item() for other in logits)
                expected = strongest * EDGES.weight[e].item() * math.exp(logit) / total
                assert weights[e].item() == pytest.approx(expected, rel=1e-4)
                assert share[e].item() == pytest.approx(expected * (steps[modality] / steps.sum()).item(), rel=1e-4)
                moved = moved + made.step[relation] * expected * (made.out[relation] @ sources[EDGES.source[e]])
        torch.testing.assert_close(states[target], moved / moved.norm(), atol=1e-5, rtol=0)
    torch.testing.assert_close(states[1], targets[1])  # it has no edge


def test_an_untrained_layer_moves_a_node_a_little_towards_what_is_near_in_its_modality() -> None:
    made, targets, sources = GraphLayer(DIM, "gatv2", 0.1), unit(3, DIM), unit(5, DIM)
    plain = GraphLayer(DIM, "cosine", 0.1)
    weights = made.weights(targets, sources, EDGES)
    torch.testing.assert_close(weights, plain.weights(targets, sources, EDGES))
    states = made(targets, sources, EDGES, weights, 1)
    assert (states * targets).sum(1).min() > 0.98
    torch.testing.assert_close(states[0], normalize(targets[0] + 0.1 * 0.9 * sources[1], dim=0))  # as far as the
    torch.testing.assert_close(states[2], normalize(targets[2] + 0.1 * 0.5 * sources[4], dim=0))  # edge exists
    torch.testing.assert_close(made.share(EDGES, weights), torch.tensor([0.9, 0, 0, 0, 0.5]), atol=1e-4, rtol=0)


PAIRS = torch.tensor([0, 1, 2, 2, 4, 5, 6, 7])
"""Images of a batch; the third and fourth pair are two texts of one image."""


def batch(nodes: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    """Image nodes and text nodes `[B, R, D]`, and the image of each of them in one list."""
    item = PAIRS.repeat_interleave(nodes).repeat(2)
    return unit(len(PAIRS), nodes, DIM), unit(len(PAIRS), nodes, DIM), item


def graph(layers: int = 2, update: Update = "layer", step: float = 0.5, **options: Any) -> DynamicGraph:
    torch.manual_seed(1)
    made = DynamicGraph(DIM, layers, **({"attention": "gatv2", "rule": "mutual"} | options), update=update, step=step)
    for each in made.layers:
        torch.nn.init.normal_(each.score.weight)  # type: ignore[arg-type, union-attr]
        torch.nn.init.constant_(each.step, step)  # type: ignore[arg-type]
    return made


def propagate(made: DynamicGraph, image: Tensor, text: Tensor, item: Tensor, k: int = 3) -> list[Propagation]:
    context = pair_context(PAIRS, image, text, k)
    halves = image.flatten(0, 1), text.flatten(0, 1)
    return made(torch.cat(halves), context, own_images(item), halves)


def test_layers_follow_each_other_with_the_modalities_known() -> None:
    image, text, item = batch()
    made = graph()
    done = propagate(made, image, text, item)
    states = torch.cat([image, text]).flatten(0, 1)
    modality = made.modality.repeat_interleave(len(states) // 2, dim=0)
    sources = states + modality  # of every layer: those of the encoder
    for each, step in zip(made.layers, done, strict=True):
        weights = each.weights(states + modality, sources, step.edges)  # type: ignore[operator]
        torch.testing.assert_close(step.attention, each.share(step.edges, weights))  # type: ignore[operator]
        states = each(states, sources, step.edges, weights, len(states) // 2)
        torch.testing.assert_close(step.states, states)
    totals = torch.zeros(len(states)).index_add(0, done[0].edges.target, done[0].attention)
    assert (totals < 1 + 1e-5).all() and (totals > 0.9).any()


def test_when_edges_are_found() -> None:
    image, text, item = batch()
    layerwise, stepwise = (propagate(graph(update=update), image, text, item) for update in ("layer", "step"))
    assert torch.equal(stepwise[0].edges.source, stepwise[1].edges.source)
    assert torch.equal(layerwise[0].edges.source, stepwise[0].edges.source)
    first, second = layerwise
    context = pair_context(PAIRS, image, text, 3)
    half = len(item) // 2
    expected = context.attach((first.states[:half], first.states[half:]), own_images(item))
    assert torch.equal(second.edges.source, expected.source) and torch.equal(second.edges.target, expected.target)
    torch.testing.assert_close(second.edges.cosine, expected.cosine.detach())
    assert not torch.allclose(layerwise[1].states, stepwise[1].states, atol=1e-4)


def test_a_static_graph_is_found_by_what_its_pairs_were_before_the_projection() -> None:
    image, text, item = batch()
    seen = unit(len(PAIRS), 2, 4), unit(len(PAIRS), 2, 5)
    context = pair_context(PAIRS, image, text, 3, keys=seen)
    flat = seen[0].flatten(0, 1), seen[1].flatten(0, 1)
    done = graph(update="static")(torch.cat([image, text]).flatten(0, 1), context, own_images(item), flat)
    assert torch.equal(done[0].edges.source, done[1].edges.source)
    half = len(item) // 2
    for kind, table in ((1, flat[0]), (2, flat[1])):  # across, by the half of the pair that is of the target's kind
        edges = done[0].edges[done[0].edges.kind == kind]
        cosines = (table[edges.target % half] * table[edges.source % half]).sum(1)
        torch.testing.assert_close(edges.cosine, cosines)
        assert len(edges)


@pytest.mark.parametrize("rule", ["mutual", "union"])
@pytest.mark.parametrize("update", ["layer", "step"])
def test_in_training_nothing_flows_from_what_belongs_together(rule: str, update: Update) -> None:
    """The gradient of a node with respect to all nodes of its own image, its partner's and siblings', is 0."""
    image, text, item = batch()
    made = graph(3, update, rule=rule)

    def related(nodes: Tensor) -> Tensor:
        return propagate(made, nodes[:8], nodes[8:], item, k=40)[-1].states

    flow = torch.autograd.functional.jacobian(related, torch.cat([image, text]))
    flow = flow.abs().amax(dim=(1, 4)).flatten(1)
    partners = (item.unsqueeze(1) == item.unsqueeze(0)) & ~torch.eye(len(item), dtype=torch.bool)
    assert (flow[partners] == 0).all() and partners.sum() == 6 * 4 * 3 + 8 * 7
    assert (flow[item.unsqueeze(1) != item.unsqueeze(0)] > 0).all()


def test_gradients_are_finite_with_duplicates_and_without_neighbours() -> None:
    image, text, item = batch()
    for nodes in ((image[:1].expand_as(image), text[:1].expand_as(text)), (image, image)):
        leaves = [part.clone().requires_grad_() for part in nodes]
        made = graph()
        sum(step.states.square().sum() for step in propagate(made, leaves[0], leaves[1], item)).backward()  # type: ignore[union-attr]
        assert all(leaf.grad is not None and leaf.grad.isfinite().all() for leaf in leaves)
        assert all(weight.grad is None or weight.grad.isfinite().all() for weight in made.parameters())
    alone = unit(1, 2, DIM)
    context = pair_context(torch.tensor([0]), alone, alone, 3)
    flat = alone.flatten(0, 1).requires_grad_()
    done = graph()(torch.cat([flat, flat]), context, own_images(torch.zeros(4, dtype=torch.int64)), (flat, flat))
    torch.testing.assert_close(done[-1].states, torch.cat([flat, flat]))
    done[-1].states.sum().backward()
    assert flat.grad is not None and flat.grad.isfinite().all()


def test_edges_left_out_share_their_attention_among_the_others() -> None:
    image, text, item = batch()
    context = pair_context(PAIRS, image, text, 3)
    halves = image.flatten(0, 1), text.flatten(0, 1)
    made, seen = graph(), list[tuple[Edges, Tensor]]()

    def strong(edges: Edges, attention: Tensor) -> Tensor:
        seen.append((edges, attention))
        return attention > 0.3

    done = made(torch.cat(halves), context, own_images(item), halves, strong)
    assert len(seen) == 2 and len(done[0].edges) == int((seen[0][1] > 0.3).sum()) < len(seen[0][0])
    redone = made.layers[0].weights(
        torch.cat(halves) + made.modality.repeat_interleave(len(item) // 2, dim=0),
        context.nodes.vectors + made.modality[context.modality],
        done[0].edges,
    )  # type: ignore[operator]
    torch.testing.assert_close(done[0].attention, made.layers[0].share(done[0].edges, redone))  # type: ignore[operator]
    assert not torch.allclose(done[1].states, propagate(made, image, text, item)[1].states, atol=1e-4)


def test_context_of_one_modality() -> None:
    nodes = unit(5, DIM)
    context = Context(Nodes(nodes, torch.arange(5), 5), 2)
    done = graph()(nodes, context, own_images(torch.arange(5)), (nodes, nodes[:0]))
    assert done[-1].states.shape == nodes.shape and (done[0].edges.kind == 0).all()


def test_states_and_votes_are_continuous_where_edges_appear_and_disappear() -> None:
    """A target that moves in small steps past every limit, alone among random nodes, moves its results in small steps.

    Doubling the number of steps halves the largest change: there is no jump.
    """
    image, text, _ = batch(1)
    labels = torch.eye(len(PAIRS))
    context, made = pair_context(PAIRS, image, text, 3), graph(2)
    ends = unit(2, DIM)
    largest = []
    for count in (1000, 2000, 4000):
        position = torch.linspace(0, 1, count + 1).unsqueeze(1)
        targets = normalize((1 - position) * ends[:1] + position * ends[1:], dim=1)
        queries = targets, targets[:0]
        with torch.no_grad():
            done = made(targets, context, context.recognised(queries), queries)
        voted = votes(done[0], labels, 1, len(targets))
        largest.append([values.diff(dim=0).norm(dim=1).max().item() for values in (done[-1].states, voted)])
        degrees = done[0].edges.target.bincount(minlength=len(targets))
        assert degrees.unique().numel() > 1  # edges appeared and disappeared on the way
    for coarse, fine in pairwise(largest):
        assert fine[0] < 0.7 * coarse[0] and fine[1] < 0.7 * coarse[1]


def test_a_message_fades_with_its_last_edge() -> None:
    made, targets, sources = layer(), unit(3, DIM), unit(5, DIM)
    labels = torch.eye(5)
    for weight in (1e-2, 1e-4, 1e-6):
        edges = replace(EDGES, weight=torch.full((5,), weight))
        weights = made.weights(targets, sources, edges)
        states = made(targets, sources, edges, weights, 1)
        assert (states - targets).norm(dim=1).max() < 10 * weight
        voted = votes(Propagation(states, edges, made.share(edges, weights)), labels, 1, 3)
        assert (voted - labels.mean(0)).norm(dim=1).max() < 10 * weight
